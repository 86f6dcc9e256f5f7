"""The log of executions: each stage that runs is a run of the MLflow experiment `capsnet`.

DVC and git keep the results; nothing reads a result back from MLflow. No failure of MLflow costs
a result: the first one is a warning on stderr and the stage goes on. mlflow is imported when a
run starts, because the import takes seconds and a training machine may not have mlflow.
"""

import io
import json
import logging
import math
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, suppress
from importlib.metadata import version
from numbers import Real
from pathlib import Path

import pandas as pd

from capsnet.files import file_md5, folder_md5
from capsnet.provenance import execution, is_running

PACKAGE = Path(__file__).resolve().parent
EXPERIMENT = "capsnet"
ENVIRONMENT = {  # defaults; a variable that the user sets wins
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; with one retry a dead server costs 10 s
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "5",  # seconds
}
SERVED_WITH = (
    "mlflow", "torch", "numpy", "numba", "safetensors", "scikit-image", "pillow", "pandas",
)  # fmt: skip
ABOUT_EXPERIMENT = "Choose *Model training* at the top left to see the runs."
ABOUT_RUN = """Results of record: `reports/runs/{run}/`. Repeat: `dvc repro {stage}`.
Errors are in %, reconstruction losses in squared pixel differences, times in seconds."""
ABOUT_MODEL = """Input: column `image`, PNG or JPEG files in base64. Output: `digits`, surest first.
`@latest` is the newest version, not the best; its tag `checkpoint.md5` stands in `dvc.lock`.

`mlflow models serve -m models:/capsnet-{run}@latest --env-manager local -p 5001`"""


@contextmanager
def track(
    stage: str, run: str, *, parameters: Mapping[str, object], checkpoint: Path | None = None
) -> Iterator["Tracker"]:
    """Log one execution of `stage` for `run`; an exception of the body passes unchanged.

    parameters: nested; logged under dotted names such as `routing.iterations`.
    checkpoint: the network that the stage reads. The newest training run that wrote a file of the
        same MD5 becomes the parent; in a fresh clone there is none.
    """
    tracker, error = Tracker(stage, run), None
    try:
        tracker._open(parameters, checkpoint)
        yield tracker
    except BaseException as caught:
        error = caught
        raise
    finally:
        if tracker._run_id is not None:
            tracker._resting_until = -math.inf  # tried after a failure too, or it stays RUNNING
            tracker._close(error)


def _survives(method: Callable[..., None]) -> Callable[..., None]:
    """Warn of the first error. After each, rest 20 times as long as it took: a server that hangs
    costs 5 % of the stage's time, and one that restarts is used again.
    """

    def guarded(self: "Tracker", *args: object, **kwargs: object) -> None:
        if (started := time.monotonic()) < self._resting_until:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            now = time.monotonic()
            self._resting_until = now + 20 * (now - started) if self._run_id else math.inf
            if not self._failure:
                self._failure = _reason(_innermost(error))
                what = "logging interrupted" if self._run_id else "not logging"
                warning = f"mlflow: {what}, cannot reach {self._uri} ({self._failure})"
                warning = re.sub(r"//[^/@]*@", "//", warning)  # without a password
                print(f"{warning}; results are in reports/", file=sys.stderr)

    return guarded


class Tracker:
    """One open MLflow run. No method raises an error of MLflow; on success none prints."""

    def __init__(self, stage: str, run: str) -> None:
        self._stage, self._run = stage, run
        self._run_id = self._parent_id = None
        self._uri = self._failure = ""
        self._resting_until = -math.inf

    @_survives
    def metrics(
        self, values: Mapping[str, object], *, step: int | None = None, run_id: str | None = None
    ) -> None:
        """Log the finite numbers among `values`, on this run or on another."""
        finite = {k: v for k, v in values.items() if isinstance(v, Real) and math.isfinite(v)}
        self._mlflow.log_metrics(finite, step, run_id=run_id)

    def headline(self, values: Mapping[str, object]) -> None:
        """Log on this run and on its training run, so that the table of runs sorts on them."""
        for run_id in {None, self._parent_id}:
            self.metrics(values, run_id=run_id)

    @_survives
    def dataset(self, folder: Path, *, name: str, split: str, num_examples: int) -> None:
        """Log a data set as an input; tag data.md5, which is outs.md5 of the folder in dvc.lock."""
        data, digest = self._mlflow.data, folder_md5(folder)
        source = data.sources.LocalArtifactDatasetSource(str(folder))
        dataset = data.meta_dataset.MetaDataset(source, name, digest[:8])
        self._mlflow.log_input(dataset, split, {"num_examples": str(num_examples)})
        self._mlflow.set_tag("data.md5", digest)

    @_survives
    def artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file, or every file of a folder, into the artifacts (under `folder`)."""
        log = self._mlflow.log_artifacts if path.is_dir() else self._mlflow.log_artifact
        log(str(path), folder)

    @_survives
    def checkpoint(self, path: Path) -> None:
        """Copy the weights; tag checkpoint.md5, which is outs.md5 of the file in dvc.lock."""
        self._mlflow.set_tag("checkpoint.md5", file_md5(path))
        self._mlflow.log_artifact(str(path), "checkpoint")

    @_survives
    def model(self, path: Path) -> None:
        """Log weights and code as the version `latest` of the served model `capsnet-<run>`."""
        readings = {"digits": [[7]] * 2, "lengths": [[0.5]] * 2, "rejected": [False] * 2}
        readings |= {"error": [1.5, None], "error_source": ["test", None]}  # None: optional
        tables, name = map(pd.DataFrame, ({"image": [""]}, readings)), f"capsnet-{self._run}"
        with redirect_stderr(io.StringIO()):  # MLflow prints a line about each version
            self._mlflow.pyfunc.log_model(
                name=name,
                registered_model_name=name,
                python_model=str(PACKAGE / "reading" / "serving.py"),
                code_paths=[str(PACKAGE)],
                artifacts={"checkpoint": str(path)},
                signature=self._mlflow.models.infer_signature(*tables),
                pip_requirements=[f"{each}=={version(each).split('+')[0]}" for each in SERVED_WITH],
                tags={"checkpoint.md5": file_md5(path)},
            )
        about = ABOUT_MODEL.format(run=self._run)
        self._mlflow.MlflowClient().update_registered_model(name, about)

    @_survives
    def tag(self, name: str, value: object) -> None:
        self._mlflow.set_tag(name, value)

    @_survives
    def _open(self, parameters: Mapping[str, object], checkpoint: Path | None) -> None:
        self._uri, database = place()
        os.environ.update(ENVIRONMENT | os.environ)
        os.environ.pop("MLFLOW_RUN_ID", None)  # start_run would reopen that run
        import mlflow

        for name in ("mlflow", "urllib3.connectionpool"):  # the tracker warns, once
            logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
        self._mlflow = mlflow
        mlflow.set_tracking_uri(self._uri)
        if database is not None:
            create_store(mlflow.MlflowClient, database)
        client, experiment = mlflow.MlflowClient(), mlflow.set_experiment(EXPERIMENT)
        if "mlflow.note.content" not in experiment.tags:
            mlflow.set_experiment_tag("mlflow.note.content", ABOUT_EXPERIMENT)
        [params] = pd.json_normalize(parameters).to_dict("records") or [{}]
        for name, value in params.items():  # as params.yaml spells it: null, true, [3, 5]
            params[name] = value if isinstance(value, str) else json.dumps(value, default=str)
        tags = execution(f"{self._stage}@{self._run}")
        tags["mlflow.note.content"] = ABOUT_RUN.format(run=self._run, stage=tags["dvc.stage"])
        tags["mlflow.source.name"] = f"stages/{self._stage}.py"
        tags |= {name: value for name, value in params.items() if name.startswith("routing.")}
        if checkpoint is not None:
            tags["checkpoint.md5"] = file_md5(checkpoint)
            query = f"tags.`checkpoint.md5` = '{tags['checkpoint.md5']}'"
            query += " AND tags.`dvc.stage` LIKE 'train@%'"  # found the newest first
            for training in client.search_runs([experiment.experiment_id], query, max_results=1):
                self._parent_id = training.info.run_id
        with suppress(Exception):
            close_abandoned(client, experiment.experiment_id, tags)
        name = self._run if self._stage == "train" else f"{self._run} {self._stage}"
        name += f" ({tags['dvc.exp_name']})" if "dvc.exp_name" in tags else ""
        run = mlflow.start_run(
            parent_run_id=self._parent_id,
            run_name=name,
            tags=tags,
            log_system_metrics=None if self._stage == "train" else False,  # None: the environment
        )
        self._run_id = run.info.run_id
        mlflow.log_params(params)

    @_survives
    def _close(self, error: BaseException | None) -> None:
        status = "FAILED" if isinstance(error, Exception) else "KILLED" if error else "FINISHED"
        self._mlflow.end_run(status)
        tags = {"incomplete": self._failure, "error": _reason(error) if error else ""}
        for name in filter(tags.get, tags):
            self._mlflow.MlflowClient().set_tag(self._run_id, name, tags[name])


def place() -> tuple[str, Path | None]:
    """The tracking URI, and the file behind it if it is SQLite: relative to the repository.

    DVC_ROOT names the repository where `dvc exp run --queue` or `--temp` runs a temporary copy.
    """
    root = Path(os.environ.get("DVC_ROOT") or PACKAGE.parent).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    scheme, _, path = uri.partition(":///")
    if not scheme.startswith("sqlite"):
        return uri, None
    return f"{scheme}:///{root / path}", root / path


def create_store(client_class: type, database: Path) -> None:
    """Create a SQLite store with the experiment unless it exists; artifacts lie beside it.

    Two processes that create a store at once break it, hence the lock. MLflow cannot use a store
    whose creation was interrupted, so it gets its name when it is complete.
    """
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=60):
        begun = Path(f"{database}.new")
        begun.unlink(missing_ok=True)
        store = database if database.exists() else begun
        with closing(sqlite3.connect(store, timeout=5)) as probe:
            probe.execute("BEGIN IMMEDIATE")  # fails soon, where MLflow tries for minutes
        client = client_class(f"sqlite:///{store}")
        if client.get_experiment_by_name(EXPERIMENT) is None:
            client.create_experiment(EXPERIMENT, (database.parent / "mlartifacts").as_uri())
        store.replace(database)


def close_abandoned(client: object, experiment_id: str, tags: Mapping[str, str]) -> None:
    """End as KILLED the RUNNING runs of this stage on this machine whose process is gone."""
    same = ("dvc.stage", "process.host", "process.machine")
    query = " AND ".join(f"tags.`{name}` = '{tags[name]}'" for name in same)
    query += " AND attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], query):
        run_id, started = run.info.run_id, run.info.start_time
        if not is_running(int(run.data.tags["process.id"]), started / 1000):
            # It ends with its last metric: a killed run must not seem to have taken days.
            points = (client.get_metric_history(run_id, name) for name in run.data.metrics)
            end = max((point.timestamp for each in points for point in each), default=started)
            client.set_terminated(run_id, "KILLED", end)


def _innermost(error: Exception) -> BaseException:
    """The error of the system or of SQLite behind an error of MLflow, else the error itself."""
    found = error
    while error := error.__cause__ or error.__context__:
        found = error if isinstance(error, OSError | sqlite3.Error) else found
    return found


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
