"""Real processes, really killed; the soak of many kills is `python -m tests.interruption`."""

import signal
import sqlite3
from pathlib import Path

import pytest

from tests.interruption import compare, interrupt, make_workspace, start


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interruption")
    make_workspace(folder, steps=160)  # seconds: a busy machine kills it before its end too
    assert start(folder, "multimnist", "alone").wait() == 0
    return folder


def test_a_killed_training_goes_on_and_ends_the_same(workspace):
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    told = interrupt(workspace, "multimnist", 3, 0.1, signals)
    assert len(told) == 4 and "multimnist: goes on after step" in told[-1]
    assert not any("Traceback" in each for each in told)
    compare(workspace)


def test_a_second_process_is_refused_in_one_line(workspace):
    first = start(workspace, "mnist", "twice")
    for line in first.stdout:
        if "squared px" in line:
            break
    first.send_signal(signal.SIGSTOP)  # or it would be done before the second one has begun
    second = start(workspace, "mnist", "twice")
    told = second.communicate(timeout=60)[0].strip().splitlines()
    assert second.returncode == 1
    assert len(told) == 1 and "another process is training" in told[0]
    first.kill()
    first.wait()


def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_stays(workspace):
    """A limit on the size of a file stands for the disk: the curve fits, the weights do not."""
    names = ("alone.safetensors", "alone.json")
    before = {name: (workspace / name).read_bytes() for name in names}
    process = start(workspace, "multimnist", "alone", most_bytes=20_000)
    told = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 1
    assert {name: (workspace / name).read_bytes() for name in names} == before
    last = "train: cannot write alone.safetensors: File too large; what was there before is"
    assert told[-1].startswith(last) and "Traceback" not in "".join(told)
    assert not [*workspace.glob(".*.partial")]


def test_two_trainings_at_once_share_a_store_and_mix_nothing(workspace):
    """As two clones with one MLFLOW_TRACKING_URI: neither has made the store before."""
    runs = {"mnist": "one", "multimnist": "other"}
    processes = [start(workspace, run, name, store="shared") for run, name in runs.items()]
    for process in processes:
        told = process.communicate(timeout=120)[0]
        assert process.returncode == 0 and "mlflow" not in told, told
    with sqlite3.connect(workspace / "shared.db") as store:
        found = store.execute("select name, status, artifact_uri from runs").fetchall()
    assert {name: status for name, status, _ in found} == dict.fromkeys(runs, "FINISHED")
    for run, _, uri in found:
        folder = Path(uri.removeprefix("file://"))
        [weights] = (folder / "checkpoint").iterdir()
        assert weights.read_bytes() == (workspace / f"{runs[run]}.safetensors").read_bytes()
        assert (folder / f"{runs[run]}.csv").is_file()
