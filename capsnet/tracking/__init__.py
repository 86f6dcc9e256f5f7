"""The log of executions: each stage that runs is a run of the MLflow experiment `capsnet`.

Nothing reads a result back from MLflow. Its first failure is a warning, and the stage goes on.
mlflow is imported when a run starts: the import takes seconds, and a stage works without it.
"""

import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from importlib.metadata import version
from numbers import Real
from pathlib import Path

import pandas as pd

from capsnet.files import file_md5, folder_md5
from capsnet.provenance import execution
from capsnet.tracking.model import ABOUT_MODEL, ANSWER, SERVED_WITH, best_version
from capsnet.tracking.store import close_abandoned, first_line, open_experiment, tracking_uri

PACKAGE = Path(__file__).resolve().parents[1]
ABOUT_RUN = """The step of a curve is the number of images shown. Errors are in %, reconstruction
losses in squared pixel differences. Results of record are in `reports/`. To bring them up to date:

    dvc repro {stage}
"""


@contextmanager
def track(
    stage: str,
    run: str,
    *,
    parameters: Mapping[str, object],
    configuration: Mapping[str, object],
    checkpoint: Path | None = None,
) -> Iterator["Tracker"]:
    """Log one execution of `stage` for `run`. Exceptions of the body pass unchanged.

    parameters: flat, the columns of the table of runs.
    configuration: nested and complete, logged as config.yaml.
    checkpoint: the network that the stage reads. The newest training run with a checkpoint of the
        same MD5 becomes the parent run.
    """
    tracker, error = Tracker(run), None
    try:
        tracker._open(stage, parameters, configuration, checkpoint)
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
            self._failure = first_line(error)
            what = "logging interrupted" if self._run_id else "not logging"
            warning = f"mlflow: {what}, cannot reach {tracking_uri()} ({self._failure})"
            warning = re.sub(r"//[^/@]*@", "//", warning)  # without a password
            print(f"{warning}; results are in reports/", file=sys.stderr)

    return guarded


class Tracker:
    """One open MLflow run. No public method raises an error of MLflow."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._run_id = self._parent_id = None
        self._failure = ""

    @_guarded
    def parameters(self, values: Mapping[str, object]) -> None:
        self._mlflow.log_params({name: _spelled(value) for name, value in values.items()})

    @_guarded
    def metrics(self, values: Mapping[str, object], *, step: int | None = None) -> None:
        """Log the finite numbers among `values`."""
        self._mlflow.log_metrics(_finite(values), step)

    @_guarded
    def headline(self, values: Mapping[str, object]) -> None:
        """Log on this run and on its training run, so that the table of runs sorts on them.

        The steps of the training run count the evaluations of its network.
        """
        self._mlflow.log_metrics(_finite(values))
        if self._parent_id is not None:
            history = self._mlflow.MlflowClient().get_metric_history
            step = len(history(self._parent_id, next(iter(values))))
            self._mlflow.log_metrics(_finite(values), step, run_id=self._parent_id)

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

    @_guarded
    def figures(self, folder: Path) -> None:
        """Copy figures into the artifacts of this run and, to be compared, of its training run.

        MLflow's compare page shows the files at the root of the artifacts, and no folders.
        """
        self._mlflow.log_artifacts(str(folder), folder.name)
        if self._parent_id is not None:
            self._mlflow.log_artifacts(str(folder), run_id=self._parent_id)

    def checkpoint(self, path: Path) -> None:
        """Copy the weights; tag checkpoint.md5, which is outs.md5 of the file in dvc.lock."""
        self.tag("checkpoint.md5", file_md5(path))
        self.artifact(path, folder="checkpoint")

    @_guarded
    def model(self, path: Path, *, validation_error: float, num_digits: int) -> None:
        """Log weights and code as the version `latest` of the registered model `capsnet-<run>`.

        validation_error: percent. num_digits: training and validation digits of the data set.
        """
        answers = {field: examples for field, (examples, _) in ANSWER.items()}
        tables, name = map(pd.DataFrame, ({"image": [""]}, answers)), f"capsnet-{self._run}"
        tags = {"checkpoint.md5": file_md5(path), "data.digits": str(num_digits)}
        if math.isfinite(validation_error):
            tags["validation_error"] = f"{validation_error:.2f}"
        with redirect_stderr(io.StringIO()):  # MLflow prints a line about each version
            self._mlflow.pyfunc.log_model(
                name=name,
                registered_model_name=name,
                python_model=str(PACKAGE / "reading" / "serving.py"),
                code_paths=[str(PACKAGE)],
                artifacts={"checkpoint": str(path)},
                signature=self._mlflow.models.infer_signature(*tables),
                pip_requirements=[f"{each}=={version(each).split('+')[0]}" for each in SERVED_WITH],
                tags=tags,
            )
        client = self._mlflow.MlflowClient()
        fields = "\n".join(f"- `{field}`: {meaning}" for field, (_, meaning) in ANSWER.items())
        client.update_registered_model(name, ABOUT_MODEL.format(name=name, fields=fields))
        champion = best_version(client.search_model_versions(f"name = '{name}'"))
        if champion is not None:
            client.set_registered_model_alias(name, "champion", champion)

    @_guarded
    def tested(self, *, test_error: float) -> None:
        """Tag the versions of the training run with their test error in percent."""
        client, query = self._mlflow.MlflowClient(), f"run_id = '{self._parent_id}'"
        for each in client.search_model_versions(query) if self._parent_id else ():
            client.set_model_version_tag(each.name, each.version, "test_error", f"{test_error:.2f}")

    @_guarded
    def _open(self, stage: str, parameters, configuration, checkpoint: Path | None) -> None:
        os.environ.pop("MLFLOW_RUN_ID", None)  # start_run would reopen that run
        self._mlflow = mlflow = open_experiment()
        tags = execution(f"{stage}@{self._run}")
        tags["mlflow.note.content"] = ABOUT_RUN.format(stage=tags["dvc.stage"])
        tags["mlflow.source.name"] = f"stages/{stage}.py"
        tags |= {k: _spelled(v) for k, v in parameters.items() if k.startswith("routing.")}
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
        self.parameters(parameters)
        mlflow.log_dict(configuration, "config.yaml")

    def _close(self, error: BaseException | None) -> None:
        if self._run_id is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED" if error else "FINISHED"
            self._mlflow.end_run(status)
            tags = {"incomplete": self._failure, "error": first_line(error) if error else ""}
            for name in filter(tags.get, tags):
                self._mlflow.MlflowClient().set_tag(self._run_id, name, tags[name])


def _finite(values: Mapping[str, object]) -> dict[str, float]:
    return {k: v for k, v in values.items() if isinstance(v, Real) and math.isfinite(v)}


def _spelled(value: object) -> str:
    """A value as params.yaml spells it: null, true, [3, 5]."""
    return value if isinstance(value, str) else json.dumps(value)
