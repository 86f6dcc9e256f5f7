"""The MLflow edge: every execution of a stage is a run of the experiment `capsnet`.

MLflow is the log of executions, DVC the record of results: nothing reads results back from here,
so nothing here may cost a result. A store that cannot be reached, or dies midway, is one line on
stderr and the stage goes on. Only this file, `registry` and `serving` import mlflow, and only when
a run is opened: the import takes seconds and may be missing on a machine that only trains.

The database and the artifacts lie in the repository root whatever the working directory is, since
`dvc exp run --queue` and `--temp` run in a copy that is deleted afterwards (DVC_ROOT still names
the repository there). MLFLOW_TRACKING_URI, when set, wins.

Deliberately MlflowClient, not `mlflow.start_run`: no active run, tracking URI or MLFLOW_RUN_ID of
the process can change where a number goes, and a child needs no parent in the same process.
"""

import functools
import getpass
import hashlib
import json
import logging
import math
import numbers
import os
import platform
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

EXPERIMENT = "capsnet"
WORKSPACE = Path(__file__).resolve().parents[1]  # the copy whose code runs; DVC_ROOT may be another
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
PURPOSE = {
    "train": "Trains the network of run `{run}`: live curves, system load, a copy of the weights. "
    "Errors in %, reconstruction loss in squared pixel differences, times in seconds.",
    "evaluate": "Evaluates the trained network of run `{run}` on the test digits. Errors in %.",
    "model": "The network that one execution of stage `train` wrote for run `{run}`; its curves "
    "and errors stand on the source run.",
    "perturb": "Varies each dimension of the digit capsules of run `{run}`, measures the effect.",
}


@contextmanager
def track(
    stage: str, run: str, *, parameters: Mapping[str, object], checkpoint: Path | None = None
) -> Iterator["Tracker"]:
    """Open an MLflow run for one execution of `stage` for `run`, and close it whatever happens.

    parameters: nested, all that the stage used; logged with dotted names (`routing.iterations`).
    checkpoint: the trained network that the stage reads. The run becomes a child of the newest
        training run that wrote these bytes; a fresh clone has none, then it stands alone.

    An exception of the body passes unchanged and ends the run as FAILED, an interrupt as KILLED.
    """
    for name, value in ENVIRONMENT.items():  # before anything imports mlflow
        os.environ.setdefault(name, value)
    tracker = Tracker(stage, run)
    status, error = "FAILED", None
    try:
        tracker._open(parameters, checkpoint)
        yield tracker
        status = "FINISHED"
    except BaseException as caught:
        status = "FAILED" if isinstance(caught, Exception) else "KILLED"
        error = caught
        raise
    finally:
        tracker._close(status, error)


def _survives(method: Callable[..., None]) -> Callable[..., None]:
    """Keep the errors of `method` from the stage: the first is one line on stderr, the rest silent.

    After a failure the tracker rests for twenty times what the failure took, so that a store that
    hangs costs a stage at most a twentieth of its time, and one that comes back is used again.
    """

    @functools.wraps(method)
    def guarded(self: "Tracker", *args: object, **kwargs: object) -> None:
        started = time.monotonic()
        if started < self._rests_until:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            now = time.monotonic()
            self._rests_until = now + 20 * (now - started) if self._run_id else math.inf
            self._tell(error)

    return guarded


class Tracker:
    """One open MLflow run. No method raises for want of MLflow, and none prints on success."""

    def __init__(self, stage: str, run: str) -> None:
        self._stage, self._run = stage, run
        self._uri = ""
        self._client = self._monitor = self._run_id = self._parent_id = None
        self._tags: dict[str, str] = {}
        self._rests_until = -math.inf
        self._failure = ""

    @_survives
    def metrics(self, values: Mapping[str, object], *, step: int | None = None) -> None:
        """Log the numbers among `values` with dotted names; None, NaN and text are left out."""
        self._log_metrics(self._run_id, values, step)

    @_survives
    def headline(self, values: Mapping[str, float]) -> None:
        """Log on this run and on the training run, so that the table of runs sorts on them."""
        self._log_metrics(self._run_id, values)
        if self._parent_id:
            self._log_metrics(self._parent_id, values)

    @_survives
    def dataset(self, folder: Path, *, name: str, split: str, num_examples: int) -> None:
        """Log the data read as an MLflow dataset input; tag data.md5 = outs.md5 in dvc.lock.

        The digest also covers the split and its size: MLflow keeps one record for each name and
        digest, and would show the size of the first split for the others.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        folder_md5 = _folder_md5(folder)
        digest = hashlib.md5(f"{folder_md5} {split} {num_examples}".encode()).hexdigest()[:8]
        source = json.dumps({"uri": Path(os.path.relpath(folder)).as_posix()})
        profile = json.dumps({"num_rows": num_examples})
        dataset = Dataset(name, digest, "local", source, profile=profile)
        tag = InputTag("mlflow.data.context", split)
        self._client.log_inputs(self._run_id, [DatasetInput(dataset, [tag])])
        self._client.set_tag(self._run_id, "data.md5", folder_md5)

    @_survives
    def artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file, or every file of a folder, into the artifacts (under `folder`)."""
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        log(self._run_id, str(path), folder)

    @_survives
    def checkpoint(self, path: Path) -> None:
        """Copy the weights; tag checkpoint.md5 = outs.md5 in dvc.lock, so each finds the other."""
        self._client.set_tag(self._run_id, "checkpoint.md5", _md5(path))
        self._client.log_artifact(self._run_id, str(path), "checkpoint")

    @_survives
    def model(self, path: Path) -> None:
        """Log the checkpoint as a model that MLflow serves; register it as `capsnet-<run>`."""
        from capsnet.reading.registry import register

        words = _note("model", self._run, self._tags)
        register(self._client, self._uri, self._run_id, path, run=self._run, description=words)

    @_survives
    def tag(self, name: str, value: object) -> None:
        """Tag the run, e.g. `resumed`."""
        self._client.set_tag(self._run_id, name, _text(value))

    @_survives
    def _open(self, parameters: Mapping[str, object], checkpoint: Path | None) -> None:
        self._uri, database = _store()
        from mlflow.entities import Param  # after the place is known, which a failure names

        self._client, experiment_id = _connect(self._uri, database)
        texts = {name: _text(value) for name, value in _flat(parameters)}
        self._tags = tags = _tags(self._stage, self._run)
        tags |= {name: text for name, text in texts.items() if name.startswith("routing.")}
        if checkpoint is not None:
            tags["checkpoint.md5"] = _md5(checkpoint)
            self._parent_id = self._training_run(experiment_id, tags["checkpoint.md5"])
        if self._parent_id:
            tags["mlflow.parentRunId"] = self._parent_id
        with suppress(Exception):  # tidying up is not worth a run
            self._close_abandoned(experiment_id, tags)
        name = self._run if self._stage == "train" else f"{self._run} {self._stage}"
        if "dvc.exp_name" in tags:
            name += f" ({tags['dvc.exp_name']})"
        run = self._client.create_run(experiment_id, tags=tags, run_name=name)
        self._run_id = run.info.run_id
        entries = [Param(name, text) for name, text in texts.items()]
        for start in range(0, len(entries), 100):  # MLflow's limit for one call
            self._client.log_batch(self._run_id, params=entries[start : start + 100])
        if self._stage == "train":
            self._monitor = _system_metrics(self._uri, self._run_id)

    def _close(self, status: str, error: BaseException | None) -> None:
        """End the run; tried even after a failure, or it would read RUNNING for ever."""
        if self._run_id is None:
            return
        try:
            if self._monitor is not None and not self._failure:
                self._monitor.finish()
            if self._failure:
                self._client.set_tag(self._run_id, "incomplete", self._failure)
            if error is not None:
                self._client.set_tag(self._run_id, "error", _reason(error))
            self._client.set_terminated(self._run_id, status)
        except Exception as failure:
            self._tell(failure)

    def _tell(self, error: Exception) -> None:
        """One line for the first failure, with the innermost reason that the system gave."""
        if self._failure:
            return
        inner = cause = error
        while cause := cause.__cause__ or cause.__context__:
            inner = cause if isinstance(cause, OSError | sqlite3.Error) else inner
        store = re.sub(r"//[^/@]*@", "//", self._uri)  # without a password
        self._failure = _reason(inner).replace(self._uri, store)
        what = "logging interrupted" if self._run_id else "not logging"
        told = f"mlflow: {what}, cannot reach {store} ({self._failure}); results are in reports/"
        print(told, file=sys.stderr)

    def _log_metrics(
        self, run_id: str, values: Mapping[str, object], step: int | None = None
    ) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step or 0) for name, value in _numbers(values)]
        for start in range(0, len(points), 1000):  # MLflow's limit for one call
            self._client.log_batch(run_id, metrics=points[start : start + 1000])

    def _training_run(self, experiment_id: str, checkpoint_md5: str) -> str | None:
        found = self._client.search_runs(
            [experiment_id],
            f"tags.\"checkpoint.md5\" = '{checkpoint_md5}' and tags.\"dvc.stage\" LIKE 'train@%'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return found[0].info.run_id if found else None

    def _close_abandoned(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """End as KILLED the RUNNING runs of this stage and host whose process is gone (SIGKILL)."""
        running = self._client.search_runs(
            [experiment_id],
            f"attributes.status = 'RUNNING' and tags.\"dvc.stage\" = '{tags['dvc.stage']}' "
            f"and tags.\"process.host\" = '{tags['process.host']}'",
        )
        for run in running:
            started = run.info.start_time
            if _is_alive(int(run.data.tags["process.id"]), started / 1000):
                continue
            # Ended when it was last heard of: a killed run must not seem to have taken days.
            points = (
                point.timestamp
                for name in run.data.metrics
                for point in self._client.get_metric_history(run.info.run_id, name)
            )
            self._client.set_terminated(run.info.run_id, "KILLED", max(points, default=started))


def _store() -> tuple[str, Path | None]:
    """The tracking URI, and the file behind it where it is a SQLite database (made absolute)."""
    root = Path(os.environ.get("DVC_ROOT") or WORKSPACE).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
    sqlite = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", uri)
    if sqlite is None:
        return uri, None
    database = root / sqlite[2]
    return f"{sqlite[1]}{database}{sqlite[3]}", database


def _connect(uri: str, database: Path | None) -> tuple[object, str]:
    """Return the client and the id of the experiment, made on first use.

    Two processes that create a SQLite store at once would break each other, hence the lock. The
    artifacts of a SQLite store lie beside it; a server knows its own place.
    """
    from filelock import FileLock
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils as databases

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:  # failures are told once, by this file
        for name in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    databases.MAX_RETRY_COUNT = 2  # not 10: that is two minutes for a file that is no database
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock", timeout=60) if database is not None else nullcontext()
    with lock:
        if database is not None:  # MLflow tries several times before it says locked or unwritable
            with closing(sqlite3.connect(database, timeout=5)) as probe:
                probe.execute("BEGIN IMMEDIATE")
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return client, experiment.experiment_id
        place = (database.parent / "mlartifacts").as_uri() if database is not None else None
        try:
            return client, client.create_experiment(EXPERIMENT, place, EXPERIMENT_TAGS)
        except MlflowException:  # on a server another process was first
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                raise
            return client, experiment.experiment_id


def _system_metrics(uri: str, run_id: str) -> object | None:
    """Start MLflow's sampling thread; None where psutil cannot read this machine."""
    if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0"):
        return None
    with suppress(Exception):
        import psutil
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        class QuietMonitor(SystemMetricsMonitor):
            def monitor(self) -> None:
                with suppress(Exception):  # else the thread prints a traceback
                    psutil.cpu_percent()  # the load since this call; the first would read 0
                    time.sleep(0.1)
                    super().monitor()

        monitor = QuietMonitor(run_id, tracking_uri=uri)
        monitor.start()
        return monitor
    return None


def _tags(stage: str, run: str) -> dict[str, str]:
    """What is known about this execution before it starts; unknown facts are left out."""
    name = os.environ.get("DVC_STAGE") or f"{stage}@{run}"
    tags = {
        "mlflow.source.name": f"stages/{stage}.py",
        "mlflow.source.type": "LOCAL",
        "dvc.stage": name,
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME"),
        "dvc.exp_baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "process.id": str(os.getpid()),
        "process.host": socket.gethostname(),
        "python.version": platform.python_version(),
        "hardware.cpu": _processor(),
    }
    with suppress(Exception):  # no user name in some containers
        tags["mlflow.user"] = getpass.getuser()
    with suppress(Exception):  # no git, or no commit yet
        tags["mlflow.source.git.commit"] = _git("rev-parse", "HEAD")
        # What the stages themselves write does not make the code dirty.
        changed = _git("status", "--porcelain", "-uno", "--", ".", ":!reports", ":!dvc.lock")
        tags["git.dirty"] = _text(bool(changed))
    with suppress(Exception):
        import torch

        tags["torch.version"] = str(torch.__version__)
        tags["hardware.num_threads"] = str(torch.get_num_threads())
        if torch.cuda.is_available():
            tags["hardware.gpu"] = torch.cuda.get_device_name()
    tags = {name: value for name, value in tags.items() if value}
    return {"mlflow.note.content": _note(stage, run, tags)} | tags


def _note(stage: str, run: str, tags: Mapping[str, str]) -> str:
    """What a run is, and where DVC and git have it: Markdown for its page."""
    lines = [
        f"- Results of record: `reports/runs/{run}/`, described in `reports/summary.md`.",
        f"- Repeat: `dvc repro {tags['dvc.stage']}`; compare with others: `dvc exp show`.",
    ]
    if "dvc.exp_name" in tags:
        name = tags["dvc.exp_name"]
        lines.append(f"- DVC experiment `{name}`: `dvc exp apply {name}` brings it back.")
    if "mlflow.source.git.commit" in tags:
        dirty = " with uncommitted changes" if tags.get("git.dirty") == "true" else ""
        lines.append(f"- Code: commit `{tags['mlflow.source.git.commit']}`{dirty}.")
    return f"{PURPOSE.get(stage, stage).format(run=run)}\n\n" + "\n".join(lines)


def _git(*words: str) -> str:
    """Ask git about the code that runs: in a `--temp` workspace the copy, not the repository."""
    command = ["git", "-C", str(WORKSPACE), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _is_alive(process_id: int, started: float) -> bool:
    """Whether the process that opened a run at `started` (seconds) is still there.

    A process much younger than the run only got the same number; 60 s allow for clock changes.
    """
    import psutil

    try:
        process = psutil.Process(process_id)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < started + 60
    except psutil.NoSuchProcess:
        return False


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested mapping -> dotted names; letters that MLflow refuses in a name become `_`."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield re.sub(r"[^\w.\- /:]", "_", name)[:250], value


def _numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in _flat(values):
        if getattr(value, "ndim", None) == 0:  # a scalar of NumPy or torch
            value = value.item()
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if is_number and math.isfinite(value):
            yield name, float(value)


def _text(value: object) -> str:
    """A value as params.yaml spells it (`null`, `true`, `[3, 5]`), at most 500 characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 500 else f"{text[:499]}…"


def _reason(error: BaseException) -> str:
    """An error in one line of bearable length."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _folder_md5(folder: Path) -> str:
    """DVC's hash of a folder: MD5 of the list of names and MD5s, with the suffix `.dir`."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()
    )
    if not files:
        raise FileNotFoundError(f"{folder}: no files, so no data to name")
    listing = [{"md5": _md5(path), "relpath": relpath} for relpath, path in files]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"
