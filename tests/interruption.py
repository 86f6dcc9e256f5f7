"""Start real trainings in processes of their own, kill them, compare what they wrote."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from capsnet.data.archives import ARCHIVES, write_idx
from capsnet.paths import RunPaths, run_paths

ROOT = Path(__file__).parents[1]
SIZES = {"conv_channels": 16, "primary_types": 2, "decoder_sizes": [16]}
TIMES = ["images_per_second", "seconds", "peak_memory_mib"]


def make_workspace(folder: Path, steps: int) -> None:
    """Sixty digits of noise and a params.yaml with small networks for both tasks."""
    random_numbers = np.random.default_rng(0)
    (folder / "data" / "digits").mkdir(parents=True)
    for split in ("train", "test"):
        images, labels = (folder / "data" / "digits" / name for name in ARCHIVES[split])
        write_idx(images, random_numbers.integers(0, 256, (60, 28, 28), np.uint8))
        write_idx(labels, np.arange(60) % 10)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["budget"], tree["train"]["save_every"] = "quick", 0
    tree["data"]["validation_fraction"] = 0.5
    tree["routing"]["implementation"] = "reference"  # no kernel is compiled
    tree["budgets"]["quick"]["network"] = SIZES
    tree["runs"]["multimnist"]["network"] = "capsnet"
    for task in tree["tasks"].values():
        task["batch_size"]["quick"], task["training_examples"]["quick"] = 4, 4 * steps
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def paths_of(folder: Path, name: str, run: str) -> RunPaths:
    """Where the training `name` of this run writes."""
    return RunPaths(*(folder / name / path for path in run_paths(run, "quick")))


def start(
    folder: Path,
    run: str,
    name: str,
    *,
    launcher: Sequence[str] = (sys.executable, "-u"),
    stage: str = "train",
    options: Sequence[str] = (),
    most_bytes: int = -1,
) -> subprocess.Popen:
    """Start a stage in the folder `name`, which has the data and parameters of `folder`.

    All share one MLflow store. most_bytes: limit of the size of a file.
    """
    workspace = folder / name
    if not workspace.exists():
        (workspace / "data").mkdir(parents=True)
        (workspace / "data" / "digits").symlink_to(folder / "data" / "digits")
        shutil.copy(folder / "params.yaml", workspace)
    environment = os.environ | {
        "DVC_ROOT": str(workspace),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [*launcher, "-m", f"stages.{stage}", run, *options],
        cwd=workspace,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: (
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes)),
            signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's `&` ignores it
        ),
    )


def finish(process: subprocess.Popen) -> str:
    """What a stage printed; it must succeed."""
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    return printed


def wait_for_training(process: subprocess.Popen) -> None:
    for line in process.stdout:
        if "squared px" in line:  # the header of the table: training begins
            return


def interrupt(folder: Path, run: str, signals: Sequence[signal.Signals], seconds: float) -> str:
    """Train in the folder `killed`, killed once by each signal, each within `seconds` of the first
    saved state. Return what the last start printed.
    """
    chance = random.Random(0)
    for number in signals:
        process = start(folder, run, "killed")
        wait_for_training(process)
        states = folder / "killed" / ".resume"
        while not [*states.glob("*/state.safetensors")] and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, seconds))
        process.send_signal(number)
        assert "Traceback" not in process.communicate(timeout=60)[0]
    return finish(start(folder, run, "killed"))


def compare(folder: Path, run: str) -> None:
    """The trainings `alone` and `killed` wrote the same weights and, but for times, the same log;
    no state and no open MLflow run is left.
    """
    one, other = (paths_of(folder, name, run) for name in ("alone", "killed"))
    assert one.model.read_bytes() == other.model.read_bytes(), "the checkpoints differ"
    curves = [pd.read_csv(paths.curve).drop(columns=TIMES) for paths in (one, other)]
    pd.testing.assert_frame_equal(*curves)
    left = [path for path in (folder / "killed" / ".resume").iterdir() if path.is_dir()]
    assert not left, left
    with sqlite3.connect(folder / "mlflow.db") as store:
        statuses = [status for (status,) in store.execute("select status from runs")]
        resumed = store.execute("select value from tags where key = 'resumed'").fetchall()
    assert "RUNNING" not in statuses and "FINISHED" in statuses, statuses
    assert resumed and all(value.startswith("after step ") for (value,) in resumed), resumed
