"""Kill real trainings at random moments, start them again, and compare with one left alone.

    python -m tests.interruption --kills 20

is the soak; tests/stages/test_interruption.py calls the same with few kills. A state is saved after
every step, so that many kills fall into the writing of one.
"""

import argparse
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from capsnet.data.archives import ARCHIVES, write_idx

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
SIZES = {"conv_channels": 16, "primary_types": 2, "decoder_sizes": [16]}
TIMES = ["images_per_second", "seconds", "peak_memory_mib"]


def make_workspace(folder: Path, steps: int) -> None:
    """Sixty digits of noise and a params.yaml for small networks of both tasks."""
    random_numbers = np.random.default_rng(0)
    (folder / "digits").mkdir(parents=True)
    images, labels = (folder / "digits" / name for name in ARCHIVES["train"])
    write_idx(images, random_numbers.integers(0, 256, (60, 28, 28), np.uint8))
    write_idx(labels, np.arange(60) % 10)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["budget"], tree["train"]["save_every"] = "quick", 0
    tree["data"]["validation_fraction"] = 0.5
    tree["budgets"]["quick"]["network"] = SIZES
    for task in tree["tasks"].values():
        task["batch_size"]["quick"], task["training_examples"]["quick"] = 4, 4 * steps
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def start(
    folder: Path,
    run: str,
    name: str,
    *,
    launcher: Sequence[str] = (sys.executable, "-u"),
    store: str | None = None,
    most_bytes: int = -1,
) -> subprocess.Popen:
    """Stage `train` in a process of its own, which writes `name`.* and saves its state apart.

    launcher: as in dvc.yaml; store: of MLflow, by default one for each name; most_bytes: of a file
    that it may write.
    """
    environment = os.environ | {
        "DVC_ROOT": str(folder / name),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/{store or name}.db",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [*launcher, "-m", "stages.train", run, "--digits", "digits"]
    for option, ending in (("model", "safetensors"), ("curve", "csv"), ("metrics", "json")):
        command += [f"--{option}", f"{name}.{ending}"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes)),
    )


def interrupt(folder: Path, run: str, kills: int, seconds: float, signals=SIGNALS) -> list:
    """Train, killed so many times, each within `seconds`; returns what each start printed."""
    chance, told = random.Random(0), []
    while len(told) < kills:
        process = start(folder, run, "killed")
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "squared px" in line:  # the head of the table: training begins
                break
        states = folder / "killed" / ".resume"
        while not [*states.glob("*/state.safetensors")] and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, seconds))
        process.send_signal(signals[len(told) % len(signals)])
        lines.append(process.communicate(timeout=60)[0])
        told.append("".join(lines))
        if process.returncode == 0:  # it was done before the signal came
            break
    told.append(start(folder, run, "killed").communicate(timeout=300)[0])
    return told


def compare(folder: Path) -> None:
    """Same weights, same log records but for times, no state left, no run of MLflow left open."""
    one, other = ((folder / f"{name}.safetensors").read_bytes() for name in ("alone", "killed"))
    assert one == other, "the checkpoints differ"
    one, other = (
        pd.read_csv(folder / f"{name}.csv").drop(columns=TIMES) for name in ("alone", "killed")
    )
    pd.testing.assert_frame_equal(one, other)
    left = [path for path in (folder / "killed" / ".resume").iterdir() if path.is_dir()]
    assert not left, left
    with sqlite3.connect(folder / "killed.db") as store:
        statuses = [status for (status,) in store.execute("select status from runs")]
        resumed = store.execute("select value from tags where key = 'resumed'").fetchall()
    assert "RUNNING" not in statuses, statuses
    assert statuses.count("FINISHED") >= 1, statuses
    assert resumed and all(value.startswith("after step ") for (value,) in resumed), resumed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="for each task (default: 20)")
    parser.add_argument("--steps", type=int, default=1500, help="of each training (default: 1500)")
    parser.add_argument("--seconds", type=float, default=1.0, help="until a kill, at most")
    arguments = parser.parse_args()
    for run in ("mnist", "multimnist"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_workspace(folder, arguments.steps)
            assert start(folder, run, "alone").wait() == 0
            told = interrupt(folder, run, arguments.kills, arguments.seconds)
            compare(folder)
        steps = [line.split(" step ")[1].split(",")[0] for each in told for line in each.split("\n")
                 if "goes on after step" in line]  # fmt: skip
        print(f"{run}: killed {len(told) - 1} times, went on after steps {', '.join(steps)}: same")


if __name__ == "__main__":
    main()
