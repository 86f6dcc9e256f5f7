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
from types import SimpleNamespace
from urllib.parse import unquote

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  loaded here, once for all forks
import pytest
import yaml
from mlflow import MlflowClient

from capsnet import provenance
from capsnet.tracking import best_version, track
from capsnet.tracking.store import ENVIRONMENT, EXPERIMENT, LOCATIONS

PARAMETERS = {"seed": 7, "routing.iterations": 3, "routing.leaky": False, "affnist": None}
CONFIGURATION = {"seed": 7, "routing": {"iterations": 3}}
NOTHING = {"parameters": {}, "configuration": {}}
MODEL = {"validation_error": 1.5, "num_digits": 60_000}
FORK = multiprocessing.get_context("fork")  # a fresh process imports for seconds


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory):
    """Folder, address and process of a real server, which starts while other tests run."""
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", port]
    command += ["--backend-store-uri", f"sqlite:///{folder}/team.db"]
    command += ["--artifacts-destination", str(folder / "kept")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # halves the start
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    yield folder, f"http://127.0.0.1:{port}", process
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory, server) -> Path:
    """A folder below DVC_ROOT whose store three processes create at once, after an interrupted
    creation. cwd is elsewhere, and nothing of the caller's MLflow or DVC is left.
    """
    root = tmp_path_factory.mktemp("repository") / "user"
    (root / "elsewhere").mkdir(parents=True)
    (root / "mlflow.db.new").write_text("half")
    (root / "network").write_bytes(b"weights")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_"))]:
            patch.delenv(name)
        for name in ENVIRONMENT:  # restored afterwards
            patch.setenv(name, ENVIRONMENT[name])
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///user/mlflow.db")
        patch.setenv("DVC_ROOT", str(root.parent))
        patch.chdir(root / "elsewhere")
        processes = [FORK.Process(target=train, args=(name,)) for name in "abc"]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        yield root


def train(name: str, seconds: float = 0) -> None:
    """To run in another process."""
    with track("train", name, **NOTHING) as tracker:
        tracker.metrics({"loss": 1})
        time.sleep(seconds)


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs_of(client: MlflowClient, prefix: str) -> list:
    """Runs whose name begins with `prefix`, the oldest first."""
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    query, order = f"attributes.run_name LIKE '{prefix}%'", ["attributes.start_time ASC"]
    return client.search_runs([experiment], query, order_by=order)


def artifacts(folder: Path, run) -> Path:
    return folder / "mlartifacts" / run.info.run_id / "artifacts"


def test_processes_create_the_store_at_once(root):
    found = [run.info.status for name in "abc" for run in runs_of(client_of(root), name)]
    assert found == ["FINISHED"] * 3


def test_a_training_is_logged_in_the_repository(root, monkeypatch, capfd):
    """The hash of the folder is that of `dvc add`."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # must not redirect the run
    monkeypatch.setenv("DVC_EXP_NAME", "dusty-goat")
    for name, text in {"a.txt": "a", "sub/b.bin": "b", "a b.txt": "c", "sub-x": "d"}.items():
        (root / "digits" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "digits" / name).write_text(text)
    with track("train", "mnist", parameters=PARAMETERS, configuration=CONFIGURATION) as tracker:
        for step in range(3):
            tracker.metrics({"loss": 1 / (step + 1), "none": None, "nan": float("nan")}, step=step)
        tracker.dataset(root / "digits", name="mnist", split="train", num_examples=4)
        tracker.artifact(root / "digits", folder="figures")
        tracker.checkpoint(root / "network")
    assert capfd.readouterr() == ("", "") and not list(Path.cwd().iterdir())
    [run] = runs_of(client_of(root), "mnist")
    assert (run.info.run_name, run.info.status) == ("mnist (dusty-goat)", "FINISHED")
    params = {"seed": "7", "routing.iterations": "3", "routing.leaky": "false", "affnist": "null"}
    assert run.data.params == params
    tags = run.data.tags
    assert tags["routing.iterations"] == "3" and tags["dvc.stage"] == "train@mnist"
    assert tags["checkpoint.md5"] == hashlib.md5(b"weights").hexdigest()
    assert tags["data.md5"] == "858c0e578a9bf074cfb666693adb96a0.dir"
    assert run.inputs.dataset_inputs[0].dataset.digest == "858c0e57"
    assert "nan" not in run.data.metrics and run.data.metrics["loss"] == 1 / 3
    kept = artifacts(root, run)
    assert (kept / "checkpoint" / "network").read_bytes() == b"weights"
    assert (kept / "figures" / "sub" / "b.bin").is_file()
    assert yaml.safe_load((kept / "config.yaml").read_text()) == CONFIGURATION


def test_a_child_of_the_newest_training_with_this_checkpoint(root, tmp_path):
    """The training has the figures and error of its evaluations; each step has one value."""
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"picture")
    (weights := tmp_path / "weights").write_bytes(b"a child's")
    for name in ("child", "child", "child of other weights"):
        with track("train", name, **NOTHING) as tracker:
            if name == "child":
                tracker.checkpoint(weights)
    evaluations = ((b"a child's", 0.75), (b"a child's", 0.25), (b"trained elsewhere", 0.5))
    for content, error in evaluations:
        weights.write_bytes(content)
        with track("evaluate", "child", **NOTHING, checkpoint=weights) as tracker:
            tracker.headline({"test_error": error, "nothing": float("nan")})
            tracker.figures(tmp_path / "figures")
    client = client_of(root)
    first, newest, _, _, child, alone = runs_of(client, "child")
    assert child.data.tags["mlflow.parentRunId"] == newest.info.run_id
    assert child.data.metrics == newest.data.metrics == {"test_error": 0.25}
    assert first.data.metrics == {} and alone.data.metrics == {"test_error": 0.5}
    assert "mlflow.parentRunId" not in alone.data.tags
    history = client.get_metric_history(newest.info.run_id, "test_error")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.75), (1, 0.25)]
    for run, name in ((newest, "a.png"), (child, "figures/a.png"), (alone, "figures/a.png")):
        assert (artifacts(root, run) / name).read_bytes() == b"picture"


def test_the_newest_model_is_latest_and_the_best_is_champion(root, tmp_path, capfd):
    """The second version is tested: it has the error as a tag."""
    for content, error in ((b"first", 2.5), (b"second", 3.5)):
        (tmp_path / "network").write_bytes(content)
        with track("train", "served", **NOTHING) as tracker:
            tracker.checkpoint(tmp_path / "network")
            tracker.model(tmp_path / "network", validation_error=error, num_digits=100)
    with track("evaluate", "served", **NOTHING, checkpoint=tmp_path / "network") as tracker:
        tracker.tested(test_error=4.25)
    assert capfd.readouterr() == ("", "")
    client = client_of(root)
    version = client.get_model_version_by_alias("capsnet-served", "latest")
    md5 = hashlib.md5(b"second").hexdigest()
    errors = {"validation_error": "3.50", "test_error": "4.25"}
    assert version.tags == {"checkpoint.md5": md5, "data.digits": "100"} | errors
    assert client.get_model_version_by_alias("capsnet-served", "champion").version == 1
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert model.source_run_id == version.run_id == runs_of(client, "served")[1].info.run_id
    kept = Path(model.artifact_location.removeprefix("file://"))
    assert root in kept.parents and not [*kept.rglob("*.pkl"), *kept.rglob("*.pyc")]
    assert (kept / "artifacts" / "network").read_bytes() == b"second"
    assert (kept / "code" / "capsnet" / "nn" / "routing.py").is_file()


def test_a_moved_store_keeps_its_artifacts_beside_it(root, tmp_path, monkeypatch):
    """A copy, so that the old place is there to be written to by mistake."""
    shutil.copytree(root, moved := tmp_path / "größer 2")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved / 'mlflow.db'}")
    with track("train", "moved", **NOTHING) as tracker:
        tracker.checkpoint(root / "network")
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    client = client_of(moved)
    [run] = runs_of(client, "moved")
    assert (artifacts(moved, run) / "checkpoint" / "network").read_bytes() == b"weights"
    found = []
    with sqlite3.connect(moved / "mlflow.db") as store:
        for table, column in LOCATIONS.items():
            found += store.execute(f"SELECT {column} FROM {table} WHERE {column} LIKE 'file:%'")
    assert len(found) > 10 and all(place.startswith(moved.as_uri()) for (place,) in found)
    model = client.get_model_version_by_alias("capsnet-served", "latest").source
    place = client.get_logged_model(model.removeprefix("models:/")).artifact_location
    assert Path(unquote(place.removeprefix("file://")), "MLmodel").is_file()


def test_a_deleted_experiment_is_restored_and_a_chosen_place_stays(tmp_path, monkeypatch, capfd):
    client, chosen = client_of(tmp_path), tmp_path / "large disk"
    client.delete_experiment(client.create_experiment(EXPERIMENT, chosen.as_uri()))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "network").touch()
    with track("train", "restored", **NOTHING) as tracker:
        tracker.checkpoint(tmp_path / "network")
    assert "mlflow: restored the deleted experiment capsnet\n" in capfd.readouterr().err
    assert [run.info.status for run in runs_of(client, "restored")] == ["FINISHED"]
    assert len([*chosen.rglob("network")]) == 1


def test_the_best_version_has_the_lowest_validation_error_on_the_largest_data():
    """Of equals the newest; a network without validation digits is not compared."""

    def best(*versions: tuple) -> int | None:
        names = "data.digits", "validation_error"
        tags = [dict(zip(names, each, strict=False)) for each in versions]
        return best_version([SimpleNamespace(version=n, tags=t) for n, t in enumerate(tags)])

    assert best(("100", "1.00"), ("100", "0.50"), ("100", "0.50"), ("100", "2.00")) == 2
    assert best(("100", "1.00"), ("7", "0.00")) == 0 and best(("100",)) is None


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("bad\nloss"), "FAILED"), (SystemExit(143), "KILLED")],
)
def test_exceptions_of_the_stage_pass_unchanged(root, error, status):
    name = type(error).__name__
    with pytest.raises(type(error)) as caught, track("train", name, **NOTHING):
        raise error
    assert caught.value is error
    [run] = runs_of(client_of(root), name)
    assert run.info.status == status and run.data.tags["error"].startswith(name)


def test_the_run_of_a_killed_process_is_closed_by_the_next(root, monkeypatch):
    """One whose process lives, and those of another machine of this name, are left alone."""
    killed, alive = (FORK.Process(target=train, args=("k", 120)) for _ in range(2))
    killed.start()
    alive.start()
    client = client_of(root)
    while len(runs_of(client, "k")) < 2:
        time.sleep(0.1)
    killed.kill()
    killed.join()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(provenance.uuid, "getnode", lambda: 1)
        with track("train", "k", **NOTHING):
            assert [run.info.status for run in runs_of(client, "k")] == ["RUNNING"] * 3
    with track("train", "k", **NOTHING):
        status = {run.data.tags["process.id"]: run.info.status for run in runs_of(client, "k")}
    assert (status[str(killed.pid)], status[str(alive.pid)]) == ("KILLED", "RUNNING")
    alive.kill()


def log_everything(tracker, path: Path) -> None:
    tracker.metrics({"loss": 1.0}, step=1)
    tracker.parameters({"a": 1})
    tracker.headline({"error": 0.5})
    tracker.figures(path.parent / "elsewhere")
    tracker.tested(test_error=0.5)
    tracker.dataset(path.parent / "elsewhere", name="mnist", split="train", num_examples=1)
    tracker.artifact(path)
    tracker.checkpoint(path)
    tracker.model(path, **MODEL)
    tracker.tag("a", 1)


def assert_one_warning(capfd, reason: str) -> None:
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("mlflow: ") and err.count("\n") == 1, err
    assert reason in err and "secret" not in err, err


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("http://me:secret@127.0.0.1:9", "Connection refused"), ("nonsense://x", "nonsense"),
     ("sqlite:///user/network", "not a database"),
     ("no mlflow", "ModuleNotFoundError")],
)  # fmt: skip
def test_a_store_out_of_reach_is_one_warning(uri, reason, root, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if uri == "no mlflow":
        monkeypatch.setitem(sys.modules, "mlflow", None)
    started = time.monotonic()
    with track("train", "mnist", **NOTHING) as tracker:
        log_everything(tracker, root / "network")
    assert time.monotonic() - started < 20
    assert_one_warning(capfd, reason)


def test_a_store_that_dies_midway_is_one_warning(root, tmp_path, monkeypatch, capfd):
    shutil.copy(root / "mlflow.db", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with track("train", "mnist", **NOTHING) as tracker:
        with sqlite3.connect(tmp_path / "mlflow.db") as store:
            store.execute("DROP TABLE metrics")
            store.execute("DROP TABLE tags")
        log_everything(tracker, root / "network")
    assert_one_warning(capfd, "no such table")


def test_a_training_logs_to_a_server(server, root, monkeypatch, capfd):
    """Run, curve, weights and model are with the server alone."""
    folder, address, process = server
    for _ in range(600):
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            break
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with track("train", "mnist", **NOTHING) as tracker:
        log_everything(tracker, root / "network")
    assert capfd.readouterr() == ("", "") and not list(Path.cwd().iterdir())
    [run] = runs_of(MlflowClient(address), "mnist")
    assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", 1)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    kept = [path.read_bytes() for path in (folder / "kept").rglob("network")]
    assert kept == [b"weights"] * 3
