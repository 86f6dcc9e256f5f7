"""Trainings in real processes that are killed, meet a full disk, or run side by side."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pandas as pd
import psutil
import pytest
import safetensors.torch
import torch
import yaml

from tests.interruption import (
    TIMES,
    compare,
    finish,
    interrupt,
    make_workspace,
    paths_of,
    start,
    wait_for_training,
)

TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2"]
RUN = "multimnist"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """With a finished training `alone`, in float32, whose sums differ less between processes."""
    folder = tmp_path_factory.mktemp("interruption")
    make_workspace(folder, steps=120)  # seconds: a busy machine also kills it before its end
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["optimizer"] |= {"precision": "float32", "intervals": 4}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    finish(start(folder, RUN, "alone"))
    return folder


def test_a_killed_training_resumes_and_ends_the_same(workspace):
    signals = [signal.SIGKILL, signal.SIGINT]
    assert f"{RUN}: resumes after step" in interrupt(workspace, RUN, signals, 0.1)
    compare(workspace, RUN)


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_signal_while_a_stage_starts_ends_it_within_10_seconds(workspace, stage):
    """After 2, 4 and 6 seconds of processor time, which is while it imports or just after."""
    for seconds, number in ((2, signal.SIGINT), (4, signal.SIGTERM), (6, signal.SIGINT)):
        process = start(workspace, RUN, "starts" if stage == "train" else "alone", stage=stage)
        watched = psutil.Process(process.pid)
        while process.poll() is None and sum(watched.cpu_times()[:2]) < seconds:
            sleep(0.05)
        process.send_signal(number)
        assert "Traceback" not in process.communicate(timeout=10)[0]


def test_a_second_process_is_refused_in_one_line(workspace):
    first = start(workspace, RUN, "twice")
    wait_for_training(first)
    first.send_signal(signal.SIGSTOP)  # or it would be done before the second one has begun
    second = start(workspace, RUN, "twice")
    lines = second.communicate(timeout=60)[0].strip().splitlines()
    assert second.returncode == 1
    assert len(lines) == 1 and "another process is training" in lines[0]
    first.kill()
    first.wait()


def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_stays(workspace):
    """A limit on the size of a file stands for the disk: the curve fits, the weights do not."""
    paths = paths_of(workspace, "alone", RUN)
    files = (paths.model, paths.reports / "training.json")
    before = [path.read_bytes() for path in files]
    process = start(workspace, RUN, "alone", most_bytes=20_000)
    lines = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 1 and [path.read_bytes() for path in files] == before
    last = f"train: cannot write models/{RUN}.safetensors: File too large; what was there before"
    assert lines[-1].startswith(last) and "Traceback" not in "".join(lines)
    assert not [*paths.model.parent.glob(".*.partial")]


def test_two_processes_train_as_one(workspace):
    """Each batch of 4 as two shards of 2: same errors and, up to rounding, losses and weights;
    rank 0 alone logs.
    """
    printed = finish(start(workspace, RUN, "two", launcher=TORCHRUN))
    assert printed.count("2 x cpu") == 1
    paths = [paths_of(workspace, name, RUN) for name in ("alone", "two")]
    curves = [pd.read_csv(one.curve).drop(columns=TIMES) for one in paths]
    pd.testing.assert_frame_equal(*curves, rtol=1e-4)
    one, two = (safetensors.torch.load_file(each.model) for each in paths)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)
    with sqlite3.connect(workspace / "mlflow.db") as store:
        [(count,)] = store.execute("select count(*) from tags where value = '2'")
    assert count <= 1


def test_two_processes_evaluate_as_one(workspace):
    """The 500 test pairs in batches of 13, every other one by the other process: same files."""
    path = workspace / "alone" / "params.yaml"
    path.write_text(path.read_text().replace("batch_size: 100", "batch_size: 13"))
    written = []
    for number, launcher in enumerate(((sys.executable,), TORCHRUN)):
        options = ["--topics", "errors,separation", "--no-figures", "--out", str(number)]
        finish(start(workspace, RUN, "alone", stage="evaluate", launcher=launcher, options=options))
        folder = workspace / "alone" / str(number)
        written.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert written[0] == written[1] and "separation.csv" in written[0]


def test_a_lost_process_ends_the_training(workspace):
    """One of two is killed: the job ends within a minute, and the next start resumes."""
    job = start(workspace, RUN, "lost", launcher=TORCHRUN)
    wait_for_training(job)
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(job.pid)], capture_output=True)
    while not [*(workspace / "lost" / ".resume").glob("*/state.safetensors")]:
        assert job.poll() is None
    os.kill(max(map(int, found.stdout.split())), signal.SIGKILL)
    begun = monotonic()
    job.communicate(timeout=60)
    assert job.returncode == 1 and monotonic() - begun < 60
    again = start(workspace, RUN, "lost", launcher=TORCHRUN)
    assert "resumes after step" in finish(again)
