"""Where the log of runs lies, how it is opened, and what is looked up in it.

The database and the artifacts lie in the repository root whatever the working directory is, since
`dvc exp run --queue` and `--temp` run in a copy that is deleted afterwards (DVC_ROOT still names
the repository there). MLFLOW_TRACKING_URI, when set, wins.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path

from capsnet.tracking.tags import WORKSPACE

EXPERIMENT = "capsnet"
ENVIRONMENT = {  # defaults; what the user has set stays
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; with one retry a dead server costs 10 s,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # where MLflow's own 120 s and 7 cost a quarter hour
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "5",  # seconds
}
EXPERIMENT_TAGS = {
    # The pages of MLflow 3.17 open as for chat bots, with 0 traces and the runs out of sight.
    "mlflow.note.content": "Choose *Model training* at the top left to see the runs.\n\n"
    "Capsule networks with dynamic routing (Sabour, Frosst, Hinton 2017). "
    "One top-level run for each execution of `dvc repro train@<run>`; its evaluations and "
    "perturbations are its children, their headline numbers also stand on the training run. "
    "Each trained network is also a model of the registry, `capsnet-<run>`, ready to be served.\n\n"
    "The results of record are in `reports/` (start with `reports/summary.md`), under git and DVC: "
    "`dvc exp show` lists all experiments, `dvc dag` their stages. A stage that DVC skips or "
    "restores makes no run here.",
}


def place() -> tuple[str, Path | None]:
    """The tracking URI, and the file behind it where it is a SQLite database (made absolute)."""
    root = Path(os.environ.get("DVC_ROOT") or WORKSPACE).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
    sqlite = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", uri)
    if sqlite is None:
        return uri, None
    database = root / sqlite[2]
    return f"{sqlite[1]}{database}{sqlite[3]}", database


def connect(uri: str, database: Path | None) -> tuple[object, str]:
    """Return the client and the id of the experiment, made on first use.

    Two processes that create a SQLite store at once would break each other, hence the lock. The
    artifacts of a SQLite store lie beside it; a server knows its own place.
    """
    from filelock import FileLock
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils as databases

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:  # failures are told once, by the tracker
        for name in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    databases.MAX_RETRY_COUNT = 2  # not 10: that is two minutes for a file that is no database
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock", timeout=60) if database is not None else nullcontext()
    with lock:
        if database is not None:
            if not database.exists() or database.stat().st_size == 0:
                make_store(database, MlflowClient)
            # MLflow tries several times before it says locked or unwritable
            with closing(sqlite3.connect(database, timeout=5)) as probe:
                probe.execute("BEGIN IMMEDIATE")
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return client, experiment.experiment_id
        artifacts = artifacts_beside(database) if database is not None else None
        try:
            return client, client.create_experiment(EXPERIMENT, artifacts, EXPERIMENT_TAGS)
        except MlflowException:  # on a server another process was first
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                raise
            return client, experiment.experiment_id


def make_store(database: Path, client: type) -> None:
    """A store with our experiment. It gets its name when it is whole: one that was left half made,
    by Ctrl-C in its first seconds, could never be used again.
    """
    begun = database.with_name(f"{database.name}.new")
    begun.unlink(missing_ok=True)
    maker = client(tracking_uri=f"sqlite:///{begun}")
    maker.create_experiment(EXPERIMENT, artifacts_beside(database), EXPERIMENT_TAGS)
    begun.replace(database)


def artifacts_beside(database: Path) -> str:
    return (database.parent / "mlartifacts").as_uri()


def training_run(client, experiment_id: str, checkpoint_md5: str) -> str | None:
    """The newest training run that wrote a checkpoint of these bytes."""
    found = client.search_runs(
        [experiment_id],
        f"tags.\"checkpoint.md5\" = '{checkpoint_md5}' and tags.\"dvc.stage\" LIKE 'train@%'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return found[0].info.run_id if found else None


def close_abandoned(client, experiment_id: str, tags: Mapping[str, str]) -> None:
    """End as KILLED the RUNNING runs of this stage and machine whose process is gone (SIGKILL)."""
    running = client.search_runs(
        [experiment_id],
        f"attributes.status = 'RUNNING' and tags.\"dvc.stage\" = '{tags['dvc.stage']}' "
        f"and tags.\"process.host\" = '{tags['process.host']}'",
    )
    for run in running:
        if run.data.tags.get("process.machine") != tags.get("process.machine"):
            continue  # another of the same name: its processes cannot be seen from here
        started = run.info.start_time
        if is_alive(int(run.data.tags["process.id"]), started / 1000):
            continue
        # Ended when it was last heard of: a killed run must not seem to have taken days.
        points = (
            point.timestamp
            for name in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, name)
        )
        client.set_terminated(run.info.run_id, "KILLED", max(points, default=started))


def is_alive(process_id: int, started: float) -> bool:
    """Whether the process that opened a run at `started` (seconds) is still there.

    A process much younger than the run only got the same number; 60 s allow for clock changes.
    """
    import psutil

    try:
        process = psutil.Process(process_id)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < started + 60
    except psutil.NoSuchProcess:
        return False
