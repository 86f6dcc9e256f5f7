"""Trainings in processes of their own that are killed or share the work.

Each is a fork of this one: a fresh process would import torch and MLflow for seconds.
"""

import multiprocessing
import os
import random
import runpy
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import mlflow.pyfunc  # loaded here, once for all forks
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import pandas as pd
import psutil
import pytest
import safetensors.torch
import torch
import torch._dynamo  # of the optimizer
import yaml

from capsnet import tracking
from capsnet.data.batches import seeded_generator
from capsnet.data.mnist import Digits, save_digits
from capsnet.paths import RunPaths, run_paths

FORK = multiprocessing.get_context("fork")
ROOT = Path(__file__).parents[2]
RUN = "multimnist"
SIZES = {"conv_channels": 8, "primary_types": 2, "decoder_sizes": [16]}
TIMES = ["images_per_second", "seconds", "peak_memory_mib"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Sixty digits of noise, a params.yaml, and a finished training in the folder `alone`. In
    float32 the sums of two processes differ less.
    """
    folder, generator = tmp_path_factory.mktemp("interruption"), seeded_generator(0)
    noise = torch.randint(256, (60, 28, 28), generator=generator, dtype=torch.uint8)
    digits = Digits(noise, torch.arange(60) % 10)
    (folder / "digits").mkdir()
    save_digits(folder / "digits", {"train": digits, "test": digits})
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["budget"], tree["train"]["save_every"] = "quick", 0
    tree["data"]["validation_fraction"] = 0.5
    tree["routing"]["implementation"] = "reference"  # no kernel is compiled
    tree["budgets"]["quick"]["network"] = SIZES
    tree["runs"][RUN]["network"] = "capsnet"
    tree["optimizer"] |= {"precision": "float32", "intervals": 4}
    task = tree["tasks"]["multimnist"]
    task["batch_size"]["quick"] = 4
    task["training_examples"]["quick"] = 4 * 60  # steps: killed before the end
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    finish(start(folder, "alone"))
    return folder


def paths_of(folder: Path, name: str) -> RunPaths:
    return RunPaths(*(folder / name / path for path in run_paths(RUN, "quick")))


def start(folder: Path, name: str, *words: str, **ranks: object):
    """Start a stage in the folder `name`, which has the data and parameters of `folder`.

    Only `killed` is logged. ranks: what torchrun sets.
    """
    workspace = folder / name
    if not workspace.exists():
        (workspace / "data").mkdir(parents=True)
        (workspace / "data" / "digits").symlink_to(folder / "digits")
        shutil.copy(folder / "params.yaml", workspace)
    (log := folder / f"{time.monotonic_ns()}.log").touch()
    environment = {"DVC_ROOT": str(workspace), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    environment |= {rank: str(value) for rank, value in ranks.items()}
    arguments = words or ("train",)

    def stage() -> None:
        os.chdir(workspace)
        os.environ |= environment
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
        sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115
        if name != "killed":
            tracking.track = lambda *_, **__: nullcontext(Mock())
        sys.argv = [arguments[0], RUN, *arguments[1:]]
        runpy.run_module(f"stages.{arguments[0]}", run_name="__main__")

    process = FORK.Process(target=stage)
    process.start()
    return SimpleNamespace(process=process, log=log, states=workspace / ".resume")


def start_two(folder: Path, name: str, *words: str) -> list:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        ranks = {"MASTER_ADDR": "localhost", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": 2}
    return [start(folder, name, *words, **ranks, RANK=rank, LOCAL_RANK=rank) for rank in (0, 1)]


def finish(*jobs, code: int = 0) -> str:
    """What the first printed; all must end with this exit code."""
    for job in jobs:
        job.process.join(120)
        assert job.process.exitcode == code, job.log.read_text()
    return jobs[0].log.read_text()


def wait_for_state(job) -> None:
    """Wait until it trains and has saved a state."""
    while not [*job.states.glob("*/state.safetensors")] or "squared px" not in job.log.read_text():
        assert job.process.is_alive(), job.log.read_text()
        time.sleep(0.01)


def test_a_killed_training_resumes_and_ends_the_same(workspace):
    """The same weights and, but for times, the same log; no state and no open run is left."""
    chance = random.Random(0)
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        job = start(workspace, "killed")
        wait_for_state(job)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(job.process.pid, number)
        finish(job, code=code)
    assert f"{RUN}: resumes after step" in finish(start(workspace, "killed"))
    alone, killed = (paths_of(workspace, name) for name in ("alone", "killed"))
    assert alone.model.read_bytes() == killed.model.read_bytes(), "the checkpoints differ"
    curves = [pd.read_csv(paths.curve).drop(columns=TIMES) for paths in (alone, killed)]
    pd.testing.assert_frame_equal(*curves)
    assert not [path for path in job.states.iterdir() if path.is_dir()]
    with sqlite3.connect(workspace / "mlflow.db") as store:
        statuses = {status for (status,) in store.execute("select status from runs")}
        resumed = store.execute("select value from tags where key = 'resumed'").fetchall()
    assert "RUNNING" not in statuses and "FINISHED" in statuses, statuses
    assert resumed and all(value.startswith("after step ") for (value,) in resumed), resumed


def test_two_processes_train_as_one(workspace):
    """Each batch of 4 as two shards of 2: same errors and, up to rounding, losses and weights;
    rank 0 alone logs.
    """
    jobs = start_two(workspace, "two")
    assert "2 x cpu" in finish(*jobs) and jobs[1].log.read_text() == ""
    alone, two = (paths_of(workspace, name) for name in ("alone", "two"))
    curves = [pd.read_csv(paths.curve).drop(columns=TIMES) for paths in (alone, two)]
    pd.testing.assert_frame_equal(*curves, rtol=1e-4)
    one, other = (safetensors.torch.load_file(paths.model) for paths in (alone, two))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)


def test_two_processes_evaluate_as_one(workspace):
    """The 500 test pairs in batches of 13, every other one by the other process: same files."""
    path = workspace / "alone" / "params.yaml"
    path.write_text(path.read_text().replace("batch_size: 100", "batch_size: 13"))
    words = ("evaluate", "--topics", "errors,separation", "--no-figures", "--out")
    finish(start(workspace, "alone", *words, "one"))
    finish(*start_two(workspace, "alone", *words, "two"))
    one, two = ({file.name: file.read_bytes() for file in (path.parent / name).iterdir()}
                for name in ("one", "two"))  # fmt: skip
    assert one == two and "separation.csv" in one


def test_a_lost_process_ends_the_training(workspace):
    """One of two is killed: the other ends within a minute, and the next start resumes."""
    first, second = start_two(workspace, "lost")
    wait_for_state(first)
    os.kill(second.process.pid, signal.SIGKILL)
    begun = time.monotonic()
    printed = finish(first, code=1)
    assert time.monotonic() - begun < 60 and "another process was lost" in printed
    assert "resumes after step" in finish(*start_two(workspace, "lost"))


def test_a_signal_while_a_stage_starts_ends_it_within_10_seconds(workspace):
    """In a process that imports everything, after 1 and 4 seconds of processor time."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    for stage, seconds, number in (("train", 1, signal.SIGTERM), ("evaluate", 4, signal.SIGINT)):
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", f"stages.{stage}", RUN],
            cwd=workspace / "alone",
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        watched = psutil.Process(process.pid)
        while process.poll() is None and sum(watched.cpu_times()[:2]) < seconds:
            time.sleep(0.02)
        process.send_signal(number)
        assert "Traceback" not in process.communicate(timeout=10)[1]
