"""One training in two processes that torchrun starts, on the CPU: the same as in one."""

import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES
from capsnet.nn.capsnet import CapsNet
from stages.score import TABLES
from tests.interruption import ROOT, TIMES, make_workspace, start

TORCHRUN = "torchrun --standalone --nproc-per-node"


@pytest.fixture
def workspace(tmp_path):
    """Float32, whose sums differ less; a row of the curve for each of the 20 steps."""
    make_workspace(tmp_path, steps=20)
    change(tmp_path, optimizer={"precision": "float32", "intervals": 20})
    return tmp_path


def change(folder, **sections) -> None:
    path = folder / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    for name, value in sections.items():
        tree[name] = tree[name] | value if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def test_two_processes_train_as_one_does(workspace):
    """Every batch of 4 as two shares of 2: losses and errors of 20 steps, and the weights."""
    assert start(workspace, "multimnist", "one").wait() == 0
    change(workspace, launcher=f"{TORCHRUN} 2")
    two = start(workspace, "multimnist", "two")
    told = two.communicate(timeout=120)[0]
    assert two.returncode == 0 and "2 x cpu" in told, told
    curves = [pd.read_csv(workspace / f"{name}.csv").drop(columns=TIMES) for name in ("one", "two")]
    pd.testing.assert_frame_equal(*curves, rtol=1e-5)
    one, other = (
        safetensors.torch.load_file(workspace / f"{n}.safetensors") for n in ("one", "two")
    )
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_two_processes_score_as_one_does(workspace):
    """Forty batches of the test's pairs, every other one by the other process: the same files."""
    for name, file in zip(ARCHIVES["train"], ARCHIVES["test"], strict=True):
        shutil.copy(workspace / "digits" / name, workspace / "digits" / file)
    sizes = dict(image_size=36, conv_channels=16, primary_types=2, decoder_sizes=[16])
    torch.manual_seed(0)
    model = CapsNet(**sizes)
    checkpoint.save(model, workspace / "net", network="capsnet", arguments=sizes)
    change(workspace, evaluate={"batch_size": 13})
    for number in (1, 2):
        change(workspace, launcher="python" if number == 1 else f"{TORCHRUN} {number}")
        command = [sys.executable, "-m", "stages.score", "multimnist", "--digits", "digits"]
        command += ["--model", "net", "--metrics", f"{number}/metrics.json"]
        for table in TABLES:
            command += [f"--{table.replace('_', '-')}", f"{number}/{table}.csv"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{workspace}/scores.db"}
        subprocess.run(command, cwd=workspace, env=environment, check=True, timeout=120)
    for path in (workspace / "1").iterdir():
        assert path.read_bytes() == (workspace / "2" / path.name).read_bytes(), path.name


def test_a_batch_that_cannot_be_shared_is_a_line(workspace):
    change(workspace, launcher=f"{TORCHRUN} 3")
    process = start(workspace, "mnist", "three")
    told = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "train: a batch of 4 images cannot be shared by 3 processes" in told


def test_a_launcher_that_is_none_is_a_line(workspace):
    change(workspace, launcher="torchrunn --nproc-per-node 2")
    process = start(workspace, "mnist", "none")
    told = process.communicate(timeout=120)[0].strip()
    assert process.returncode == 1 and len(told.splitlines()) == 1
    assert "launcher: got 'torchrunn --nproc-per-node 2'" in told


def test_a_lost_process_ends_the_training_and_it_goes_on(workspace):
    """One of two is killed: the other says so, and the job ends. Started again, it goes on."""
    change(workspace, launcher=f"{TORCHRUN} 2", optimizer={"intervals": 2})
    tree = yaml.safe_load((workspace / "params.yaml").read_text())
    tree["tasks"]["mnist"]["training_examples"]["quick"] = 4 * 3000
    change(workspace, tasks=tree["tasks"])
    job = start(workspace, "mnist", "job")
    told = []
    for line in job.stdout:
        told.append(line)
        if "squared px" in line:
            break
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(job.pid)], capture_output=True)
    workers = sorted(map(int, found.stdout.split()))
    while not [*(workspace / "job" / ".resume").glob("*/state.safetensors")]:
        assert job.poll() is None
    os.kill(workers[-1], signal.SIGKILL)
    told.append(job.communicate(timeout=60)[0])
    assert job.returncode != 0
    ours = [line for line in "".join(told).splitlines() if line.startswith("train: ")]
    assert ours and all("start again to go on" in line for line in ours), "".join(told)
    again = start(workspace, "mnist", "job")
    assert any("goes on after step" in line for line in again.stdout)
    again.terminate()
    again.communicate(timeout=60)
