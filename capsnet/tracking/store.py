"""Where MLflow logs: a server, or a SQLite file in the repository."""

import logging
import os
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = "capsnet"
LOCATIONS = {  # table -> column with the place of artifacts
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
ENVIRONMENT = {  # defaults; a variable that the user sets wins
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; with one retry a dead server costs 10 s
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "5",  # seconds
}


def tracking_uri() -> str:
    """The user's URI or that of mlflow.db. A SQLite file lies relative to the repository, which
    DVC_ROOT names where `dvc exp run --queue` or `--temp` runs in a temporary copy.
    """
    root = Path(os.environ.get("DVC_ROOT") or ROOT).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    scheme, _, path = uri.partition(":///")
    return f"{scheme}:///{root / path}" if scheme.startswith("sqlite") else uri


def open_experiment() -> ModuleType:
    """Log to the experiment `capsnet`. A deleted one, which records no run, is restored."""
    os.environ.update(ENVIRONMENT | os.environ)
    import mlflow

    for name in ("mlflow", "urllib3.connectionpool"):  # the tracker warns, once
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    if uri.startswith("sqlite"):
        open_store(mlflow.MlflowClient, Path(uri.partition(":///")[2]))
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        print(f"mlflow: restored the deleted experiment {EXPERIMENT}", file=sys.stderr)
    mlflow.set_experiment(EXPERIMENT)
    return mlflow


def open_store(client_class: type, database: Path) -> None:
    """Create a SQLite store with the experiment unless it exists. Its artifacts lie beside it.

    Two processes that create a store at once break it, hence the lock. MLflow cannot use a store
    whose creation was interrupted, so the file gets its name when it is complete.
    """
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    artifacts = (database.parent / "mlartifacts").as_uri()
    with FileLock(f"{database}.lock", timeout=60):
        begun = Path(f"{database}.new")
        begun.unlink(missing_ok=True)
        store = database if database.exists() else begun
        with closing(sqlite3.connect(store, timeout=5)) as probe:
            probe.execute("BEGIN IMMEDIATE")  # fails soon, where MLflow tries for minutes
        client = client_class(f"sqlite:///{store}")
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            client.create_experiment(EXPERIMENT, artifacts)
        elif found.artifact_location != artifacts:
            move_artifacts(store, found.artifact_location, artifacts)
        store.replace(database)


def move_artifacts(store: Path, old: str, new: str) -> None:
    """Follow a store that was moved or copied: MLflow keeps absolute locations. One that the user
    chose, on another disk or machine, stays.
    """
    if not (old.startswith("file:") and old.endswith("/mlartifacts")):
        return
    with closing(sqlite3.connect(store, timeout=5)) as tables, tables:
        for table, column in LOCATIONS.items():
            change = f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
            where = f"WHERE {column} = ? OR substr({column}, 1, ?) = ? || '/'"
            tables.execute(f"{change} {where}", (new, len(old) + 1, old, len(old) + 1, old))


def close_abandoned(mlflow: object, tags: Mapping[str, str]) -> None:
    """End as KILLED the RUNNING runs of this stage on this machine whose process is gone."""
    import psutil

    query = "attributes.status = 'RUNNING'"
    for name in ("dvc.stage", "process.host", "process.machine"):
        query += f" AND tags.`{name}` = '{tags[name]}'"
    for run in mlflow.search_runs([], query, output_format="list"):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(run.data.tags["process.id"]))
            same = process.create_time() < run.info.start_time / 1000 + 60  # not a later process
            if same and process.status() != psutil.STATUS_ZOMBIE:
                continue
        mlflow.MlflowClient().set_terminated(run.info.run_id, "KILLED")


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
