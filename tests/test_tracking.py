"""What MLflow holds after a stage, and that a broken MLflow never costs the stage anything.

The runs are read back with MLflow's own client from a temporary SQLite store. Creating such a store
takes seconds, so it is made once and copied; the tests of the creation itself make their own.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils as mlflow_state

from capsnet.reading import registry
from capsnet.tracking import tags as tracking_tags
from capsnet.tracking import track
from capsnet.tracking.store import ENVIRONMENT, EXPERIMENT

PARAMETERS = {"seed": 7, "routing": {"iterations": 3, "detach": False}, "train": {"epochs": None}}
FORK = multiprocessing.get_context("fork")  # a fresh process would import for seconds
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A repository root of its own, nothing of the caller's MLflow or DVC, cwd somewhere else."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "DVC_")):
            monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    elsewhere = tmp_path / "temporary workspace"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    yield
    mlflow_state._tracking_store_registry._get_store_with_resolved_uri.cache_clear()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A fresh database without our experiment."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def root(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")


def runs_of(root: Path) -> dict:
    """Run name -> run."""
    client = client_of(root)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def train_in_the_background(name: str, started, finish) -> None:
    """What a second process does: meet the first at `started`, train until `finish` is set."""
    started.wait()
    with track("train", name, parameters={"a": 1}) as tracker:
        tracker.metrics({"loss": 1})
        started.wait()
        finish.wait(60)


def test_parameters_are_flat_and_routing_is_also_tagged(root):
    long = {"text": "x" * 9000, "sizes": [3, 5], "rate": 0.001, "odd key!": 1, "none": {}}
    with track("train", "mnist", parameters=PARAMETERS | {"more": long}):
        pass
    run = runs_of(root)["mnist"]
    params = run.data.params
    assert params["seed"] == "7"
    assert params["routing.iterations"] == "3"
    assert params["routing.detach"] == "false"
    assert params["train.epochs"] == "null"
    assert params["more.sizes"] == "[3, 5]"
    assert params["more.rate"] == "0.001"
    assert params["more.odd key_"] == "1"
    assert params["more.none"] == "{}"
    assert len(params["more.text"]) == 500
    assert run.data.tags["routing.iterations"] == "3"
    assert "seed" not in run.data.tags
    assert run.info.status == "FINISHED"


def test_more_parameters_than_one_call_takes(root):
    with track("train", "mnist", parameters={f"p{i}": i for i in range(250)}):
        pass
    assert len(runs_of(root)["mnist"].data.params) == 250


def test_tags_say_where_the_run_comes_from(root, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train@mnist")
    monkeypatch.setenv("DVC_EXP_NAME", "dusty-goat")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc123")
    with track("train", "mnist", parameters=PARAMETERS) as tracker:
        tracker.tag("resumed", True)
    tags = runs_of(root)["mnist (dusty-goat)"].data.tags
    assert tags["dvc.stage"] == "train@mnist"
    assert tags["dvc.exp_name"] == "dusty-goat"
    assert tags["dvc.exp_baseline"] == "abc123"
    assert tags["process.id"] == str(os.getpid())
    assert tags["process.host"] == socket.gethostname()
    assert tags["torch.version"] == torch.__version__
    assert tags["hardware.cpu"]
    assert tags["hardware.num_threads"] == str(torch.get_num_threads())
    assert ("hardware.gpu" in tags) == torch.cuda.is_available()
    assert tags["mlflow.source.name"] == "stages/train.py"
    assert tags["resumed"] == "true"
    note = tags["mlflow.note.content"]
    for words in ("`dvc repro train@mnist`", "`reports/runs/mnist/`", "`reports/summary.md`",
                  "`dvc exp show`", "`dvc exp apply dusty-goat`"):  # fmt: skip
        assert words in note
    if "mlflow.source.git.commit" in tags:  # a copy without git has none
        assert f"commit `{tags['mlflow.source.git.commit']}`" in note
    experiment = client_of(root).get_experiment_by_name(EXPERIMENT)
    assert "DVC" in experiment.tags["mlflow.note.content"]


def test_git_commit_and_dirt_of_the_code(tmp_path, monkeypatch):
    """A stage rewrites reports/ and dvc.lock, which are in git: they are no change of the code."""

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(tracking_tags, "WORKSPACE", tmp_path)
    assert "mlflow.source.git.commit" not in tracking_tags.tags_of("train", "mnist")
    (tmp_path / "reports").mkdir()
    for name in ("code.py", "reports/a.json", "dvc.lock"):
        (tmp_path / name).write_text("1")
    git("init", "-q")
    git("add", "code.py", "reports", "dvc.lock")
    git("commit", "-qm", "first")
    (tmp_path / "reports" / "a.json").unlink()
    (tmp_path / "dvc.lock").write_text("2")
    tags = tracking_tags.tags_of("train", "mnist")
    assert tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD")
    assert tags["git.dirty"] == "false"
    (tmp_path / "code.py").write_text("2")
    assert tracking_tags.tags_of("train", "mnist")["git.dirty"] == "true"


def test_metrics_keep_their_history_and_leave_out_what_is_no_number(root):
    with track("train", "mnist", parameters={}) as tracker:
        for step in range(3):
            tracker.metrics({"loss": {"margin": 1 / (step + 1)}}, step=step)
        tracker.metrics(
            {
                "none": None, "nan": float("nan"), "infinite": float("inf"), "text": "3",
                "flag": True, "list": [1, 2], "numpy": np.float32(0.5), "tensor": torch.tensor(2),
            }
        )  # fmt: skip
    run = runs_of(root)["mnist"]
    history = client_of(root).get_metric_history(run.info.run_id, "loss.margin")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert set(run.data.metrics) == {"loss.margin", "numpy", "tensor"}


def test_child_of_the_newest_training_run_with_this_checkpoint(root, tmp_path):
    weights = tmp_path / "network.safetensors"
    weights.write_bytes(b"weights")
    for name in ("mnist", "mnist", "other"):
        with track("train", name, parameters={}) as tracker:
            if name == "mnist":
                tracker.checkpoint(weights)
        time.sleep(0.002)  # start times are in milliseconds
    with track("evaluate", "mnist", parameters={}, checkpoint=weights) as tracker:
        tracker.metrics({"accuracy": 0.9})
        tracker.headline({"test.error": 0.25})
    with track("perturb", "mnist", parameters={}, checkpoint=weights):
        pass
    client = client_of(root)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    _, newest, _, evaluation, perturbation = runs
    assert evaluation.info.run_name == "mnist evaluate"
    for child in (evaluation, perturbation):
        assert child.data.tags["mlflow.parentRunId"] == newest.info.run_id
        assert child.data.tags["checkpoint.md5"] == hashlib.md5(b"weights").hexdigest()
    assert evaluation.data.metrics == {"accuracy": 0.9, "test.error": 0.25}
    assert newest.data.metrics == {"test.error": 0.25}
    assert newest.info.status == "FINISHED"


def test_checkpoint_from_elsewhere_makes_a_run_without_parent(root, tmp_path, capfd):
    (tmp_path / "network").write_bytes(b"trained elsewhere")
    with track("evaluate", "mnist", parameters={}, checkpoint=tmp_path / "network") as tracker:
        tracker.headline({"error": 0.5})
    run = runs_of(root)["mnist evaluate"]
    assert "mlflow.parentRunId" not in run.data.tags
    assert run.data.metrics == {"error": 0.5}
    assert capfd.readouterr().err == ""


def test_dataset_input_has_the_digest_that_dvc_gives_the_folder(root, tmp_path):
    """DVC names a folder by the MD5 of its listing; this one was hashed with `dvc add`."""
    folder = tmp_path / "digits"
    (folder / "sub").mkdir(parents=True)
    files = {"a.txt": "a", "sub/b.bin": "b", "a b.txt": "c", "sub-x": "d"}
    for name, content in files.items():
        (folder / name).write_text(content)
    with track("train", "mnist", parameters={}) as tracker:
        tracker.dataset(folder, name="mnist", split="train", num_examples=60_000)
        tracker.dataset(folder, name="mnist", split="validation", num_examples=5_000)
    run = runs_of(root)["mnist"]
    assert run.data.tags["data.md5"] == "858c0e578a9bf074cfb666693adb96a0.dir"
    inputs = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert set(inputs) == {"train", "validation"}
    assert inputs["train"].name == "mnist"
    assert len(inputs["train"].digest) == 8
    assert json.loads(inputs["train"].profile) == {"num_rows": 60_000}
    assert json.loads(inputs["validation"].profile) == {"num_rows": 5_000}


def test_artifacts_are_files_below_the_root(root, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "figures" / name).write_text(name)
    weights = tmp_path / "network.safetensors"
    weights.write_bytes(b"weights")
    with track("train", "mnist", parameters={}) as tracker:
        tracker.artifact(tmp_path / "figures", folder="figures")
        tracker.artifact(tmp_path / "figures" / "a.png")
        tracker.checkpoint(weights)
    run = runs_of(root)["mnist"]
    kept = root / "mlartifacts" / run.info.run_id / "artifacts"
    assert sorted(path.relative_to(kept).as_posix() for path in kept.rglob("*.*")) == [
        "a.png", "checkpoint/network.safetensors", "figures/a.png", "figures/b.png",
    ]  # fmt: skip
    assert run.data.tags["checkpoint.md5"] == hashlib.md5(b"weights").hexdigest()
    assert not list(Path.cwd().iterdir())  # nothing in the workspace that DVC will delete


def test_model_is_registered_and_the_newest_is_latest(root, tmp_path, capfd):
    """Version, model and run link to each other; the registry finds the weights from each."""
    weights = tmp_path / "mnist.safetensors"
    for content in (b"first", b"second"):
        weights.write_bytes(content)
        with track("train", "mnist", parameters={}) as tracker:
            tracker.model(registry.register, weights)
    assert capfd.readouterr() == ("", "")
    client = client_of(root)
    (registered,) = client.search_registered_models()
    assert registered.name == "capsnet-mnist"
    assert "models:/capsnet-mnist@latest" in registered.description
    version = client.get_model_version_by_alias("capsnet-mnist", "latest")
    assert (version.version, version.status) == (2, "READY")
    assert version.tags == {"checkpoint.md5": hashlib.md5(b"second").hexdigest()}
    assert "`reports/runs/mnist/`" in version.description
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert model.tags["mlflow.modelVersions"] == '[{"name": "capsnet-mnist", "version": 2}]'
    assert model.source_run_id == version.run_id
    assert model.status == "READY"
    outputs = client.get_run(version.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [model.model_id]
    kept = Path(model.artifact_location.removeprefix("file://"))
    assert root in kept.parents
    assert (kept / "artifacts" / "mnist.safetensors").read_bytes() == b"second"
    assert (kept / "code" / "capsnet" / "nn" / "routing.py").is_file()
    assert not [*kept.rglob("*.pkl"), *kept.rglob("*.pyc")]
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert f"torch=={torch.__version__.split('+')[0]}" in (kept / "requirements.txt").read_text()
    assert not list(Path.cwd().iterdir())


def test_model_that_cannot_be_packed_is_one_line_and_marked(root, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(registry, "SERVED_WITH", ("no-such-package",))
    (tmp_path / "weights").write_bytes(b"weights")
    with track("train", "mnist", parameters={}) as tracker:
        tracker.model(registry.register, tmp_path / "weights")
    assert "PackageNotFoundError" in assert_one_line(capfd, f"sqlite:///{root / 'mlflow.db'}")
    client = client_of(root)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.status == "FAILED"
    assert not client.search_registered_models()
    assert runs_of(root)["mnist"].info.status == "FINISHED"


def test_system_metrics_of_training_only(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    for stage in ("train", "evaluate"):
        with track(stage, "mnist", parameters={}):
            time.sleep(0.5)
    runs = runs_of(root)
    assert "system/cpu_utilization_percentage" in runs["mnist"].data.metrics
    assert not runs["mnist evaluate"].data.metrics


def test_psutil_that_cannot_read_the_machine_is_no_failure(root, monkeypatch, capfd):
    import psutil

    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: 1 / 0)  # fails in the thread
    with track("train", "mnist", parameters={}):
        time.sleep(0.2)
    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)  # fails on starting
    with track("train", "other", parameters={}) as tracker:
        tracker.metrics({"loss": 1})
    assert {run.info.status for run in runs_of(root).values()} == {"FINISHED"}
    assert runs_of(root)["other"].data.metrics == {"loss": 1}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("bad\nloss"), "FAILED"), (KeyboardInterrupt(), "KILLED"),
     (SystemExit(143), "KILLED"), (StopIteration(), "FAILED")],
)  # fmt: skip
def test_exceptions_of_the_stage_pass_unchanged(root, error, status):
    with pytest.raises(type(error)) as caught, track("train", "mnist", parameters={}):
        raise error
    assert caught.value is error
    run = runs_of(root)["mnist"]
    assert run.info.status == status
    if isinstance(error, ValueError):
        assert run.data.tags["error"] == "ValueError: bad"


def test_run_of_a_killed_process_is_closed_by_the_next(root, monkeypatch):
    """SIGKILL leaves a run RUNNING; one that lives, one of another name, and those that another
    machine of the same name looks at, are left alone.
    """
    started, finish = FORK.Barrier(2), FORK.Event()
    process = FORK.Process(target=train_in_the_background, args=("mnist", started, finish))
    with (
        track("train", "mnist", parameters={}) as first,
        track("train", "other", parameters={}) as other,
    ):
        first.tag("open", True)  # nothing may be half-open when the process forks
        other.tag("open", True)
        process.start()
        started.wait(60)
        started.wait(60)
        process.kill()
        process.join()
        client = client_of(root)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(tracking_tags, "machine", lambda: "another")
            with track("train", "mnist", parameters={}) as third:
                third.tag("open", True)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        runs = client.search_runs([experiment.experiment_id])
        assert [run.info.status for run in runs].count("RUNNING") == 3
        with track("train", "mnist", parameters={}) as second:
            second.tag("open", True)
            runs = client.search_runs([experiment.experiment_id])
            status = {run.data.tags["process.id"]: run.info for run in runs}
            assert [run.info.status for run in runs].count("RUNNING") == 3
            assert status[str(process.pid)].status == "KILLED"
            assert status[str(process.pid)].end_time >= status[str(process.pid)].start_time


def test_ten_processes_create_the_store_at_once(tmp_path):
    names = [f"run_{n}" for n in range(10)]
    started, finish = FORK.Barrier(10), FORK.Event()
    finish.set()
    processes = [
        FORK.Process(target=train_in_the_background, args=(name, started, finish)) for name in names
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert {process.exitcode for process in processes} == {0}
    runs = runs_of(tmp_path)
    assert set(runs) == set(names)
    assert all(run.data.metrics["loss"] == 1 for run in runs.values())
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def cut_off_while_making_the_store() -> None:
    MlflowClient.create_experiment = lambda *_: os._exit(9)
    with track("train", "cut_off", parameters={}) as tracker:
        tracker.tag("a", 1)


def test_a_store_that_was_left_half_made_is_made_again(tmp_path, capfd):
    """As by Ctrl-C in the first seconds of the first run."""
    process = FORK.Process(target=cut_off_while_making_the_store)
    process.start()
    process.join(60)
    assert process.exitcode == 9 and not (tmp_path / "mlflow.db").exists()
    with track("train", "mnist", parameters={}):
        pass
    assert list(runs_of(tmp_path)) == ["mnist"] and capfd.readouterr().err == ""


def test_first_run_of_a_fresh_process_says_nothing(tmp_path):
    """Not even while the database is made. torch is left out because its import takes seconds."""
    code = "import sys; sys.modules['torch'] = None\nfrom capsnet.tracking import track\n"
    code += "with track('train', 'mnist', parameters={'a': 1}) as t: t.metrics({'loss': 1})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert runs_of(tmp_path)["mnist"].data.metrics == {"loss": 1}


def test_store_of_the_user_is_used(tmp_path, empty_store, monkeypatch):
    """A relative database of theirs lies below the root too, its artifacts beside it."""
    theirs = tmp_path / "their store"
    theirs.mkdir()
    shutil.copy(empty_store, theirs / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///their store/mlflow.db")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # must not redirect the run
    weights = tmp_path / "network"
    weights.write_bytes(b"weights")
    with track("train", "mnist", parameters={}) as tracker:
        tracker.checkpoint(weights)
    run = runs_of(theirs)["mnist"]
    kept = theirs / "mlartifacts" / run.info.run_id / "artifacts" / "checkpoint" / "network"
    assert kept.read_bytes() == b"weights"
    assert not (tmp_path / "mlflow.db").exists()
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///their store/mlflow.db"


def test_second_opening_is_quick(root):
    with track("train", "mnist", parameters=PARAMETERS):
        pass
    started = time.monotonic()
    with track("evaluate", "mnist", parameters=PARAMETERS):
        assert time.monotonic() - started < 1


def everything(tracker, path: Path) -> None:
    tracker.metrics({"loss": 1.0}, step=1)
    tracker.headline({"error": 0.5})
    tracker.dataset(path.parent, name="mnist", split="train", num_examples=1)
    tracker.artifact(path)
    tracker.checkpoint(path)
    tracker.model(registry.register, path)
    tracker.tag("a", 1)


def assert_one_line(capfd, store: str) -> str:
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("mlflow: ") and err.endswith("; results are in reports/\n")
    assert err.count("\n") == 1 and f"cannot reach {store} (" in err, err
    return err


@pytest.mark.parametrize(
    ("uri", "shown", "reason"),
    [
        ("http://me:secret@127.0.0.1:9", "http://127.0.0.1:9", "ConnectionRefusedError"),
        ("nonsense://x", "nonsense://x", "UnsupportedModelRegistryStoreURIException"),
        ("sqlite:////dev/null/mlflow.db", "sqlite:////dev/null/mlflow.db", "FileExistsError"),
    ],
)
def test_store_out_of_reach_is_one_line(uri, shown, reason, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (tmp_path / "file").write_text("")
    started = time.monotonic()
    with track("train", "mnist", parameters=PARAMETERS) as tracker:
        everything(tracker, tmp_path / "file")
    assert time.monotonic() - started < 10
    assert reason in assert_one_line(capfd, shown)


def test_server_that_never_answers_costs_seconds(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # 5 by default
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        started = time.monotonic()
        with track("train", "mnist", parameters=PARAMETERS) as tracker:
            tracker.metrics({"loss": 1})
        assert time.monotonic() - started < 5
    assert "TimeoutError" in assert_one_line(capfd, uri)


def break_not_a_database(database: Path) -> None:
    database.write_text("no database, but long enough to be read as one" * 9)


def break_newer_mlflow(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("damage", [break_not_a_database, break_newer_mlflow])
def test_database_that_mlflow_cannot_use_is_one_line(damage, root, capfd):
    damage(root / "mlflow.db")
    with track("train", "mnist", parameters=PARAMETERS) as tracker:
        tracker.metrics({"loss": 1})
    assert_one_line(capfd, f"sqlite:///{root / 'mlflow.db'}")


def test_locked_database_is_one_line_and_soon(root, capfd):
    lock = sqlite3.connect(root / "mlflow.db")
    lock.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with track("train", "mnist", parameters=PARAMETERS) as tracker:
        tracker.metrics({"loss": 1})
    assert time.monotonic() - started < 10
    lock.close()
    assert "locked" in assert_one_line(capfd, f"sqlite:///{root / 'mlflow.db'}")


def test_missing_mlflow_is_one_line(root, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.entities", None)
    with track("train", "mnist", parameters=PARAMETERS) as tracker:
        tracker.metrics({"loss": 1})
    assert "ModuleNotFoundError" in assert_one_line(capfd, f"sqlite:///{root / 'mlflow.db'}")


def test_store_that_dies_midway_is_one_line(root, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    with track("evaluate", "mnist", parameters=PARAMETERS) as tracker:
        tracker.metrics({"loss": 1.0}, step=0)
        connection = sqlite3.connect(root / "mlflow.db")
        connection.execute("DROP TABLE metrics")
        connection.execute("DROP TABLE tags")
        connection.commit()
        connection.close()
        for _ in range(3):
            everything(tracker, tmp_path / "file")
    assert "no such table" in assert_one_line(capfd, f"sqlite:///{root / 'mlflow.db'}")


def test_error_of_the_stage_passes_when_the_store_is_dead_too(root, capfd):
    error = ValueError("loss is nan")
    with pytest.raises(ValueError) as caught, track("train", "mnist", parameters={}) as tracker:
        break_not_a_database(root / "mlflow.db")
        tracker.metrics({"loss": 1.0})
        raise error
    assert caught.value is error
    assert_one_line(capfd, f"sqlite:///{root / 'mlflow.db'}")


def test_store_that_comes_back_is_used_again_and_the_gap_is_tagged(root, monkeypatch, capfd):
    """After a failure the tracker rests twenty times what it took, here 0.1 s -> 2 s."""
    with track("evaluate", "mnist", parameters={}) as tracker:
        tracker.tag("open", True)
        log_batch = tracker._client.log_batch

        def slow_failure(*_, **__):
            time.sleep(0.1)
            raise OSError("server restarts")

        monkeypatch.setattr(tracker._client, "log_batch", slow_failure)
        tracker.metrics({"lost": 1})
        monkeypatch.setattr(tracker._client, "log_batch", log_batch)
        tracker.metrics({"skipped": 1})
        time.sleep(2.2)
        tracker.metrics({"kept": 1})
    run = runs_of(root)["mnist evaluate"]
    assert run.data.metrics == {"kept": 1}
    assert run.data.tags["incomplete"] == "OSError: server restarts"
    assert run.info.status == "FINISHED"
    assert_one_line(capfd, f"sqlite:///{root / 'mlflow.db'}")


def test_sampling_stops_with_the_run(root):
    with track("train", "mnist", parameters={}) as tracker:
        tracker.tag("open", True)
        sampling = tracker._monitor._process
        assert sampling.is_alive()
    assert not sampling.is_alive()
