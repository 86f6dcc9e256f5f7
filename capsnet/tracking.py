"""The log of executions: each stage that runs is a run of the MLflow experiment `capsnet`.

Nothing reads a result back from MLflow. Its first failure is a warning, and the stage goes on.
mlflow is imported when a run starts: the import takes seconds, and a stage works without it.
"""

import io
import json
import logging
import math
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, suppress
from importlib.metadata import version
from numbers import Real
from pathlib import Path

import pandas as pd

from capsnet.files import file_md5, folder_md5
from capsnet.provenance import execution

PACKAGE = Path(__file__).resolve().parent
EXPERIMENT = "capsnet"
ENVIRONMENT = {  # defaults; a variable that the user sets wins
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; with one retry a dead server costs 10 s
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "5",  # seconds
}
SERVED_WITH = (
    "mlflow", "torch", "numpy", "numba", "safetensors", "scikit-image", "pillow", "pandas",
)  # fmt: skip
ABOUT_RUN = """Results of record: `reports/runs/{run}/`. Repeat: `dvc repro {stage}`.
Errors are in %, reconstruction losses in squared pixel differences, times in seconds."""


@contextmanager
def track(
    stage: str, run: str, *, parameters: Mapping[str, object], checkpoint: Path | None = None
) -> Iterator["Tracker"]:
    """Log one execution of `stage` for `run`. Exceptions of the body pass unchanged.

    parameters: nested; logged under dotted names such as `routing.iterations`.
    checkpoint: the network that the stage reads. The newest training run with a checkpoint of the
        same MD5 becomes the parent run.
    """
    tracker, error = Tracker(run), None
    try:
        tracker._open(stage, parameters, checkpoint)
        yield tracker
    except BaseException as caught:
        error = caught
        raise
    finally:
        with suppress(Exception):
            tracker._close(error)


def _guarded(method: Callable[..., None]) -> Callable[..., None]:
    """Turn the first error into a warning, and skip all calls after it."""

    def guarded(self: "Tracker", *args: object, **kwargs: object) -> None:
        if self._failure:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            while cause := error.__cause__ or error.__context__:
                error = cause
            self._failure = _first_line(error)
            what = "logging interrupted" if self._run_id else "not logging"
            warning = f"mlflow: {what}, cannot reach {self._uri} ({self._failure})"
            warning = re.sub(r"//[^/@]*@", "//", warning)  # without a password
            print(f"{warning}; results are in reports/", file=sys.stderr)

    return guarded


class Tracker:
    """One open MLflow run. No public method raises an error of MLflow."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._run_id = self._parent_id = None
        self._uri = self._failure = ""

    @_guarded
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

    @_guarded
    def tag(self, name: str, value: object) -> None:
        self._mlflow.set_tag(name, value)

    @_guarded
    def dataset(self, folder: Path, *, name: str, split: str, num_examples: int) -> None:
        """Log a data set as an input; tag data.md5, which is outs.md5 of the folder in dvc.lock."""
        data, digest = self._mlflow.data, folder_md5(folder)
        source = data.sources.LocalArtifactDatasetSource(str(folder))
        dataset = data.meta_dataset.MetaDataset(source, name, digest[:8])
        self._mlflow.log_input(dataset, split, {"num_examples": str(num_examples)})
        self._mlflow.set_tag("data.md5", digest)

    @_guarded
    def artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file, or every file of a folder, into the artifacts (under `folder`)."""
        log = self._mlflow.log_artifacts if path.is_dir() else self._mlflow.log_artifact
        log(str(path), folder)

    def checkpoint(self, path: Path) -> None:
        """Copy the weights; tag checkpoint.md5, which is outs.md5 of the file in dvc.lock."""
        self.tag("checkpoint.md5", file_md5(path))
        self.artifact(path, folder="checkpoint")

    @_guarded
    def model(self, path: Path) -> None:
        """Log weights and code as the version `latest` of the registered model `capsnet-<run>`."""
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

    @_guarded
    def _open(self, stage: str, parameters: Mapping[str, object], checkpoint: Path | None) -> None:
        self._uri = tracking_uri()
        os.environ.update(ENVIRONMENT | os.environ)
        os.environ.pop("MLFLOW_RUN_ID", None)  # start_run would reopen that run
        import mlflow

        self._mlflow = mlflow
        for name in ("mlflow", "urllib3.connectionpool"):  # the tracker warns, once
            logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
        mlflow.set_tracking_uri(self._uri)
        if self._uri.startswith("sqlite"):
            create_store(mlflow.MlflowClient, Path(self._uri.partition(":///")[2]))
        mlflow.set_experiment(EXPERIMENT)
        [params] = pd.json_normalize(parameters).to_dict("records") or [{}]
        for name, value in params.items():  # as params.yaml spells it: null, true, [3, 5]
            params[name] = value if isinstance(value, str) else json.dumps(value, default=str)
        tags = execution(f"{stage}@{self._run}")
        tags["mlflow.note.content"] = ABOUT_RUN.format(run=self._run, stage=tags["dvc.stage"])
        tags["mlflow.source.name"] = f"stages/{stage}.py"
        tags |= {name: value for name, value in params.items() if name.startswith("routing.")}
        if checkpoint is not None:
            tags["checkpoint.md5"] = file_md5(checkpoint)
            query = f"tags.`checkpoint.md5` = '{tags['checkpoint.md5']}'"
            query += " AND tags.`dvc.stage` LIKE 'train@%'"  # the newest comes first
            for training in mlflow.search_runs([], query, max_results=1, output_format="list"):
                self._parent_id = training.info.run_id
        close_abandoned(mlflow, tags)
        name = self._run if stage == "train" else f"{self._run} {stage}"
        name += f" ({tags['dvc.exp_name']})" if "dvc.exp_name" in tags else ""
        self._run_id = mlflow.start_run(
            parent_run_id=self._parent_id,
            run_name=name,
            tags=tags,
            log_system_metrics=stage == "train",
        ).info.run_id
        mlflow.log_params(params)

    def _close(self, error: BaseException | None) -> None:
        if self._run_id is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED" if error else "FINISHED"
            self._mlflow.end_run(status)
            tags = {"incomplete": self._failure, "error": _first_line(error) if error else ""}
            for name in filter(tags.get, tags):
                self._mlflow.MlflowClient().set_tag(self._run_id, name, tags[name])


def tracking_uri() -> str:
    """The user's URI or that of mlflow.db. A SQLite file lies relative to the repository, which
    DVC_ROOT names where `dvc exp run --queue` or `--temp` runs in a temporary copy.
    """
    root = Path(os.environ.get("DVC_ROOT") or PACKAGE.parent).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    scheme, _, path = uri.partition(":///")
    return f"{scheme}:///{root / path}" if scheme.startswith("sqlite") else uri


def create_store(client_class: type, database: Path) -> None:
    """Create a SQLite store with the experiment unless it exists. Its artifacts lie beside it.

    Two processes that create a store at once break it, hence the lock. MLflow cannot use a store
    whose creation was interrupted, so the file gets its name when it is complete.
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


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
