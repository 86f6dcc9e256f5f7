"""One MLflow run for each execution of a stage.

MLflow is the log of executions, DVC the record of results: nothing reads results back from here,
so nothing here may cost a result. A store that cannot be reached, or dies midway, is one line on
stderr and the stage goes on. mlflow is imported only when a run is opened: the import takes seconds
and may be missing on a machine that only trains.

Deliberately MlflowClient, not `mlflow.start_run`: no active run, tracking URI or MLFLOW_RUN_ID of
the process can change where a number goes, and a child needs no parent in the same process.
"""

import functools
import hashlib
import json
import math
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread, current_thread

from capsnet.tracking.store import ENVIRONMENT, close_abandoned, connect, place, training_run
from capsnet.tracking.tags import note, tags_of
from capsnet.tracking.values import finite_numbers, flat, folder_md5, md5, reason, text


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
    tracker = Tracker(stage, run, parameters, checkpoint)
    status, error = "FAILED", None
    try:
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
        if current_thread() is not self._opening:
            self._opening.join()
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
    """One open MLflow run. No method raises for want of MLflow, and none prints on success.

    It is opened in a thread: importing mlflow and opening the store take seconds, in which the
    stage can load its network and its data. What is logged waits for that.
    """

    def __init__(
        self, stage: str, run: str, parameters: Mapping[str, object], checkpoint: Path | None
    ) -> None:
        self._stage, self._run = stage, run
        self._uri = ""
        self._client = self._monitor = self._run_id = self._parent_id = None
        self._tags: dict[str, str] = {}
        self._rests_until = -math.inf
        self._failure = ""
        self._opening = Thread(target=self._open, args=(parameters, checkpoint), daemon=True)
        self._opening.start()

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

        data_md5 = folder_md5(folder)
        digest = hashlib.md5(f"{data_md5} {split} {num_examples}".encode()).hexdigest()[:8]
        source = json.dumps({"uri": Path(os.path.relpath(folder)).as_posix()})
        profile = json.dumps({"num_rows": num_examples})
        dataset = Dataset(name, digest, "local", source, profile=profile)
        tag = InputTag("mlflow.data.context", split)
        self._client.log_inputs(self._run_id, [DatasetInput(dataset, [tag])])
        self._client.set_tag(self._run_id, "data.md5", data_md5)

    @_survives
    def artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file, or every file of a folder, into the artifacts (under `folder`)."""
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        log(self._run_id, str(path), folder)

    @_survives
    def checkpoint(self, path: Path) -> None:
        """Copy the weights; tag checkpoint.md5 = outs.md5 in dvc.lock, so each finds the other."""
        self._client.set_tag(self._run_id, "checkpoint.md5", md5(path))
        self._client.log_artifact(self._run_id, str(path), "checkpoint")

    @_survives
    def model(self, register: Callable[..., None], path: Path) -> None:
        """Log the checkpoint as a model that MLflow serves, by `capsnet.reading.registry`."""
        words = note("model", self._run, self._tags)
        register(self._client, self._uri, self._run_id, path, run=self._run, description=words)

    @_survives
    def tag(self, name: str, value: object) -> None:
        """Tag the run, e.g. `resumed`."""
        self._client.set_tag(self._run_id, name, text(value))

    @_survives
    def _open(self, parameters: Mapping[str, object], checkpoint: Path | None) -> None:
        self._uri, database = place()
        from mlflow.entities import Param  # after the place is known, which a failure names

        self._client, experiment_id = connect(self._uri, database)
        texts = {name: text(value) for name, value in flat(parameters)}
        self._tags = tags = tags_of(self._stage, self._run)
        tags |= {name: text for name, text in texts.items() if name.startswith("routing.")}
        if checkpoint is not None:
            tags["checkpoint.md5"] = md5(checkpoint)
            self._parent_id = training_run(self._client, experiment_id, tags["checkpoint.md5"])
        if self._parent_id:
            tags["mlflow.parentRunId"] = self._parent_id
        with suppress(Exception):  # tidying up is not worth a run
            close_abandoned(self._client, experiment_id, tags)
        name = self._run if self._stage == "train" else f"{self._run} {self._stage}"
        if "dvc.exp_name" in tags:
            name += f" ({tags['dvc.exp_name']})"
        run = self._client.create_run(experiment_id, tags=tags, run_name=name)
        self._run_id = run.info.run_id
        entries = [Param(name, text) for name, text in texts.items()]
        for start in range(0, len(entries), 100):  # MLflow's limit for one call
            self._client.log_batch(self._run_id, params=entries[start : start + 100])
        if self._stage == "train":
            self._monitor = system_metrics(self._uri, self._run_id)

    def _close(self, status: str, error: BaseException | None) -> None:
        """End the run; tried even after a failure, or it would read RUNNING for ever."""
        self._opening.join()
        if self._run_id is None:
            return
        try:
            if self._monitor is not None and not self._failure:
                self._monitor.finish()
            if self._failure:
                self._client.set_tag(self._run_id, "incomplete", self._failure)
            if error is not None:
                self._client.set_tag(self._run_id, "error", reason(error))
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
        self._failure = reason(inner).replace(self._uri, store)
        what = "logging interrupted" if self._run_id else "not logging"
        told = f"mlflow: {what}, cannot reach {store} ({self._failure}); results are in reports/"
        print(told, file=sys.stderr)

    def _log_metrics(
        self, run_id: str, values: Mapping[str, object], step: int | None = None
    ) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step or 0) for name, value in finite_numbers(values)]
        for start in range(0, len(points), 1000):  # MLflow's limit for one call
            self._client.log_batch(run_id, metrics=points[start : start + 1000])


def system_metrics(uri: str, run_id: str) -> object | None:
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
