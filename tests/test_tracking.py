"""What MLflow holds after a stage, and that a broken MLflow never costs the stage anything."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from capsnet import provenance
from capsnet.tracking import ENVIRONMENT, EXPERIMENT, track

PARAMETERS = {"seed": 7, "routing": {"iterations": 3, "leaky": False}, "train": {"epochs": None}}
FORK = multiprocessing.get_context("fork")  # a fresh process imports for seconds


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A database without our experiment: creating its tables takes seconds."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def fresh(monkeypatch, tmp_path) -> Path:
    """A repository without a store; nothing of the caller's MLflow or DVC; cwd somewhere else."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_"))]:
        monkeypatch.delenv(name)
    for name in ENVIRONMENT:  # restored afterwards
        monkeypatch.setenv(name, ENVIRONMENT[name])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "network").write_bytes(b"weights")
    return tmp_path


@pytest.fixture
def root(fresh, empty_store) -> Path:
    shutil.copy(empty_store, fresh / "mlflow.db")
    return fresh


def runs_of(uri: str | Path) -> list:
    """The oldest first."""
    client = MlflowClient(f"sqlite:///{uri / 'mlflow.db'}" if isinstance(uri, Path) else uri)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    return client.search_runs([experiment], order_by=["attributes.start_time ASC"])


def test_a_training_is_logged_in_the_repository(root, monkeypatch, capfd):
    """A relative database of the user lies below the root too. The hash is that of `dvc add`."""
    (root / "user").mkdir()
    (root / "mlflow.db").rename(root / "user" / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///user/mlflow.db")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # must not redirect the run
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setenv("DVC_EXP_NAME", "dusty-goat")
    for name, text in {"a.txt": "a", "sub/b.bin": "b", "a b.txt": "c", "sub-x": "d"}.items():
        (root / "digits" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "digits" / name).write_text(text)
    with track("train", "mnist", parameters=PARAMETERS) as tracker:
        for step in range(3):
            tracker.metrics({"loss": 1 / (step + 1), "none": None, "nan": float("nan")}, step=step)
        tracker.dataset(root / "digits", name="mnist", split="train", num_examples=4)
        tracker.artifact(root / "digits", folder="figures")
        tracker.checkpoint(root / "network")
        time.sleep(0.3)
    assert capfd.readouterr() == ("", "") and not list(Path.cwd().iterdir())
    [run] = runs_of(root / "user")
    assert (run.info.run_name, run.info.status) == ("mnist (dusty-goat)", "FINISHED")
    params = {"seed": "7", "routing.iterations": "3", "routing.leaky": "false"}
    assert run.data.params == params | {"train.epochs": "null"}
    tags = run.data.tags
    assert tags["routing.iterations"] == "3" and tags["dvc.stage"] == "train@mnist"
    assert tags["checkpoint.md5"] == hashlib.md5(b"weights").hexdigest()
    assert tags["data.md5"] == "858c0e578a9bf074cfb666693adb96a0.dir"
    assert run.inputs.dataset_inputs[0].dataset.digest == "858c0e57"
    assert "nan" not in run.data.metrics and run.data.metrics["loss"] == 1 / 3
    assert "system/cpu_utilization_percentage" in run.data.metrics
    kept = root / "user" / "mlartifacts" / run.info.run_id / "artifacts"
    assert (kept / "checkpoint" / "network").read_bytes() == b"weights"
    assert (kept / "figures" / "sub" / "b.bin").is_file()


def test_a_child_of_the_newest_training_with_this_checkpoint(root):
    for name in ("mnist", "mnist", "other"):
        with track("train", name, parameters={}) as tracker:
            if name == "mnist":
                tracker.checkpoint(root / "network")
    with track("evaluate", "mnist", parameters={}, checkpoint=root / "network") as tracker:
        tracker.headline({"error": 0.25})
    (root / "network").write_bytes(b"trained elsewhere")
    with track("evaluate", "mnist", parameters={}, checkpoint=root / "network") as tracker:
        tracker.headline({"error": 0.5})
    first, newest, _, child, alone = runs_of(root)
    assert child.data.tags["mlflow.parentRunId"] == newest.info.run_id
    assert child.data.metrics == newest.data.metrics == {"error": 0.25}
    assert first.data.metrics == {} and alone.data.metrics == {"error": 0.5}
    assert "mlflow.parentRunId" not in alone.data.tags


def test_the_newest_model_is_latest(root, capfd):
    for content in (b"first", b"second"):
        (root / "network").write_bytes(content)
        with track("train", "mnist", parameters={}) as tracker:
            tracker.model(root / "network")
    assert capfd.readouterr() == ("", "")
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    version = client.get_model_version_by_alias("capsnet-mnist", "latest")
    assert version.tags == {"checkpoint.md5": hashlib.md5(b"second").hexdigest()}
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert model.source_run_id == version.run_id == runs_of(root)[1].info.run_id
    kept = Path(model.artifact_location.removeprefix("file://"))
    assert root in kept.parents and not [*kept.rglob("*.pkl"), *kept.rglob("*.pyc")]
    assert (kept / "artifacts" / "network").read_bytes() == b"second"
    assert (kept / "code" / "capsnet" / "nn" / "routing.py").is_file()


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("bad\nloss"), "FAILED"), (SystemExit(143), "KILLED"), (StopIteration(), "FAILED")],
)
def test_exceptions_of_the_stage_pass_unchanged(root, error, status):
    with pytest.raises(type(error)) as caught, track("train", "mnist", parameters={}):
        raise error
    assert caught.value is error
    [run] = runs_of(root)
    assert run.info.status == status
    assert run.data.tags["error"].startswith(type(error).__name__)


def train(name: str, started, finish) -> None:
    """In another process: open a run when all have come to `started`, hold it until `finish`."""
    started.wait()
    with track("train", name, parameters={}) as tracker:
        tracker.metrics({"loss": 1})
        started.wait()
        finish.wait(60)


def test_the_run_of_a_killed_process_is_closed_by_the_next(root):
    """One whose process lives, and those of another machine of this name, are left alone."""
    started, finish = FORK.Barrier(3), FORK.Event()
    killed, alive = (FORK.Process(target=train, args=("a", started, finish)) for _ in range(2))
    for process in (killed, alive):
        process.start()
    started.wait(60)
    started.wait(60)
    killed.kill()
    killed.join()
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(provenance.uuid, "getnode", lambda: 1)
        with track("train", "a", parameters={}):
            assert [run.info.status for run in runs_of(root)] == ["RUNNING"] * 3
    with track("train", "a", parameters={}):
        status = {run.data.tags["process.id"]: run.info.status for run in runs_of(root)}
    assert (status[str(killed.pid)], status[str(alive.pid)]) == ("KILLED", "RUNNING")
    finish.set()
    alive.join()


def test_processes_create_the_store_at_once(fresh):
    """Also after a creation that was interrupted."""
    (fresh / "mlflow.db.new").write_text("half")
    started, finish = FORK.Barrier(3), FORK.Event()
    finish.set()
    processes = [FORK.Process(target=train, args=(name, started, finish)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert {run.info.run_name for run in runs_of(fresh)} == {"a", "b", "c"}
    assert {run.info.status for run in runs_of(fresh)} == {"FINISHED"}


def log_everything(tracker, path: Path) -> None:
    tracker.metrics({"loss": 1.0}, step=1)
    tracker.headline({"error": 0.5})
    tracker.dataset(path.parent, name="mnist", split="train", num_examples=1)
    tracker.artifact(path)
    tracker.checkpoint(path)
    tracker.model(path)
    tracker.tag("a", 1)


def assert_one_warning(capfd, reason: str) -> None:
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("mlflow: ") and err.count("\n") == 1, err
    assert reason in err and "secret" not in err, err


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("http://me:secret@127.0.0.1:9", "ConnectionRefusedError"), ("nonsense://x", "nonsense"),
     ("sqlite:////dev/null/mlflow.db", "FileExistsError"), ("", "not a database"),
     ("no mlflow", "ModuleNotFoundError")],
)  # fmt: skip
def test_a_store_out_of_reach_is_one_warning(uri, reason, fresh, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if uri == "no mlflow":
        monkeypatch.setitem(sys.modules, "mlflow", None)
    (fresh / "mlflow.db").write_text("no database, but long enough to be read as one" * 9)
    started = time.monotonic()
    with track("train", "mnist", parameters=PARAMETERS) as tracker:
        log_everything(tracker, fresh / "network")
    assert time.monotonic() - started < 20
    assert_one_warning(capfd, reason)


def test_a_store_that_dies_midway_is_one_warning(root, capfd):
    error = ValueError("loss is nan")
    with pytest.raises(ValueError) as caught, track("train", "mnist", parameters={}) as tracker:
        with sqlite3.connect(root / "mlflow.db") as store:
            store.execute("DROP TABLE metrics")
            store.execute("DROP TABLE tags")
        log_everything(tracker, root / "network")
        raise error
    assert caught.value is error
    assert_one_warning(capfd, "no such table")


def test_a_store_that_comes_back_is_used_again(root, monkeypatch, capfd):
    """After a failure of 0.1 s the tracker rests for 2 s; the run is tagged as incomplete."""

    def fail(*_, **__):
        time.sleep(0.1)
        raise OSError("server restarts")

    with track("evaluate", "mnist", parameters={}) as tracker:
        with monkeypatch.context() as broken:
            broken.setattr(MlflowClient, "log_batch", fail)
            tracker.metrics({"lost": 1})
        tracker.metrics({"skipped": 1})
        time.sleep(2.5)
        tracker.metrics({"kept": 1})
    [run] = runs_of(root)
    assert run.data.metrics == {"kept": 1}
    assert run.data.tags["incomplete"] == "OSError: server restarts"
    assert_one_warning(capfd, "server restarts")


def test_a_training_logs_to_a_server(fresh, monkeypatch, capfd):
    """The real one: run, curve, weights and model are with the server alone."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    store, kept = f"sqlite:///{fresh}/team.db", fresh / "kept"
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # halves its start
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port"]
    command += [address.partition(":")[2], "--artifacts-destination", str(kept), "--workers", "1"]
    with open(fresh / "log", "w") as log:
        logged = {"stdout": log, "stderr": log}
        server = subprocess.Popen(command, cwd=fresh, start_new_session=True, **logged)
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"http://{address}/health", timeout=5):
                break
            assert server.poll() is None, (fresh / "log").read_text()
            time.sleep(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
        with track("train", "mnist", parameters=PARAMETERS) as tracker:
            log_everything(tracker, fresh / "network")
        assert capfd.readouterr() == ("", "") and not list(Path.cwd().iterdir())
        [run] = runs_of(f"http://{address}")
        assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", 1)
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
        assert len([path for path in kept.rglob("network") if path.read_bytes() == b"weights"]) == 3
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def test_results_do_not_make_the_code_dirty(tmp_path, monkeypatch):
    """A stage rewrites reports/ and dvc.lock, which are in git."""

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True
        ).stdout.decode()

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == "unknown"
    (tmp_path / "reports").mkdir()
    files = [tmp_path / name for name in ("reports/a.json", "dvc.lock", "code.py")]
    for file in files:
        file.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    for file, changes in zip(files, ("", "", " + changes"), strict=True):
        file.write_text("2")
        assert provenance.commit() == git("rev-parse", "HEAD").strip() + changes
