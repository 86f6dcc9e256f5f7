"""One training in two processes that torchrun starts, on the CPU: the same as in one."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pandas as pd
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import yaml
from torch import nn

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES
from capsnet.learning.distributed import Distributed, init_distributed
from capsnet.learning.resume import SavedState
from capsnet.learning.training import Progress
from capsnet.nn.capsnet import CapsNet
from tests.interruption import ROOT, TIMES, compare, make_workspace, start

TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2"]


@pytest.fixture
def workspace(tmp_path):
    """Float32, whose sums differ less; a row of the curve for each of the 20 steps."""
    make_workspace(tmp_path, steps=20)
    change(tmp_path, optimizer={"precision": "float32", "intervals": 20})
    return tmp_path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def change(folder, **sections) -> None:
    path = folder / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    for name, value in sections.items():
        tree[name] = tree[name] | value if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


@pytest.fixture
def one(workspace):
    """What one process made of it."""
    assert start(workspace, "multimnist", "one").wait() == 0
    return workspace


def assert_as_one(folder: Path, name: str) -> None:
    """Losses and errors of 20 steps, and the weights; the first process alone logs."""
    curves = [pd.read_csv(folder / f"{each}.csv").drop(columns=TIMES) for each in ("one", name)]
    pd.testing.assert_frame_equal(*curves, rtol=1e-5)
    one, other = (
        safetensors.torch.load_file(folder / f"{each}.safetensors") for each in ("one", name)
    )
    for weights in one:
        torch.testing.assert_close(one[weights], other[weights], rtol=1e-4, atol=1e-5)
    with sqlite3.connect(folder / f"{name}.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]


def test_two_processes_train_as_one_does(one):
    """Every batch of 4 as two shares of 2."""
    two = start(one, "multimnist", "two", launcher=TORCHRUN)
    told = two.communicate(timeout=120)[0]
    assert two.returncode == 0 and told.count("2 x cpu") == 1, told
    assert_as_one(one, "two")


def test_two_processes_evaluate_as_one_does(workspace):
    """Forty batches of the test's pairs, every other one by the other process: the same files."""
    for name, file in zip(ARCHIVES["train"], ARCHIVES["test"], strict=True):
        shutil.copy(workspace / "digits" / name, workspace / "digits" / file)
    sizes = dict(image_size=36, conv_channels=16, primary_types=2, decoder_sizes=[16])
    torch.manual_seed(0)
    model = CapsNet(**sizes)
    checkpoint.save(model, workspace / "net", network="capsnet", arguments=sizes)
    change(workspace, evaluate={"batch_size": 13})
    for number, launcher in ((1, [sys.executable]), (2, TORCHRUN)):
        command = [*launcher, "-m", "stages.evaluate", "multimnist", "--digits", "digits"]
        command += ["--model", "net", "--out", str(number), "--no-figures"]
        command += ["--topics", "errors,separation"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{workspace}/scores.db"}
        subprocess.run(command, cwd=workspace, env=environment, check=True, timeout=120)
    names = {path.name for path in (workspace / "1").iterdir()}
    assert names == {
        "metrics.json",
        *(f"{table}.csv" for table in ("errors", "confusion", "separation", "examples")),
    }
    for path in (workspace / "1").iterdir():
        assert path.read_bytes() == (workspace / "2" / path.name).read_bytes(), path.name


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match=r"batch of 4 images .* batch_size that 3 divides"):
        Distributed(rank=0, size=3).shard(torch.zeros(4))


def test_a_lost_process_ends_the_training_and_it_goes_on(workspace):
    """One of two is killed: the job ends. Started again, it goes on, to the weights and
    the curve that it would have had.
    """
    change(workspace, optimizer={"intervals": 2})
    tree = yaml.safe_load((workspace / "params.yaml").read_text())
    tree["tasks"]["mnist"]["training_examples"]["quick"] = 4 * 300
    change(workspace, tasks=tree["tasks"])
    alone = start(workspace, "mnist", "alone", launcher=TORCHRUN)
    alone.communicate(timeout=120)
    job = start(workspace, "mnist", "killed", launcher=TORCHRUN)
    for line in job.stdout:
        if "squared px" in line:
            break
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(job.pid)], capture_output=True)
    workers = sorted(map(int, found.stdout.split()))
    while not [*(workspace / "killed" / ".resume").glob("*/state.safetensors")]:
        assert job.poll() is None
    os.kill(workers[-1], signal.SIGKILL)
    begun = monotonic()
    job.communicate(timeout=60)
    assert job.returncode == 1 and monotonic() - begun < 60
    again = start(workspace, "mnist", "killed", launcher=TORCHRUN)
    assert "goes on after step" in again.communicate(timeout=120)[0]
    compare(workspace)


def loaded(rank: int, folder: Path) -> None:
    """One of two processes, each with a folder of its own for states; only the first has one."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    os.environ |= {"MASTER_PORT": (folder / "port").read_text()}
    torch.manual_seed(rank)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with init_distributed(torch.device("cpu")) as distributed:
        saved = SavedState(folder / str(rank), "mnist", {}, every=0)
        now = Progress(step=7, loss_sums=torch.zeros(3, dtype=torch.float64))
        saved.save_if_due(model, optimizer, now, [], distributed)
        progress, _ = saved.load(model, optimizer, distributed)
        found = distributed.gather([(progress.step, model.weight.detach())])
        distributed.agree("steps", progress.step)
        with pytest.raises(ValueError, match="the processes have different distributed: give all"):
            distributed.agree("distributed", distributed.rank)
    (one, first), (other, second) = found
    assert one == other == 7 and torch.equal(first, second)


def test_machines_that_share_no_disk_go_on_from_the_same_state(tmp_path):
    (tmp_path / "port").write_text(str(free_port()))
    torch.multiprocessing.spawn(loaded, (tmp_path,), nprocs=2)
    assert not (tmp_path / "1").exists()


def test_a_mistake_in_one_of_several_processes_is_no_lost_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="shapes"), init_distributed(torch.device("cpu")):
        raise RuntimeError("shapes do not fit")
    with (
        pytest.raises(ValueError, match="another process was lost"),
        init_distributed(torch.device("cpu")),
    ):
        raise dist.DistNetworkError("connection closed by peer")
