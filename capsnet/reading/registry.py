"""The trained network as a registered MLflow model, `capsnet-<run>`: what `mlflow models serve` and
`mlflow models predict` answer with.

A model is a folder: the weights, the code of `capsnet` (`serving.py` is what runs), the signature,
an example. MLflow itself keeps the alias `latest` on the newest version and lets nobody set it.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SERVED_WITH = (  # the versions installed are written into the model
    "mlflow", "torch", "numpy", "numba", "safetensors", "scikit-image", "pillow", "pandas",
)  # fmt: skip


def register(
    client: object, uri: str, run_id: str, checkpoint: Path, *, run: str, description: str
) -> None:
    """Log the network as a model of the training run and add a version to `capsnet-<run>`.

    The version, the model and the run link to each other. A model that could not be written whole
    is marked as failed.
    """
    from mlflow.entities import LoggedModelOutput

    tags = {"checkpoint.md5": hashlib.md5(checkpoint.read_bytes()).hexdigest()}
    experiment_id = client.get_run(run_id).info.experiment_id
    name = f"capsnet-{run}"
    model = client.create_logged_model(experiment_id, name, run_id, tags=tags, model_type="capsnet")
    try:
        with tempfile.TemporaryDirectory() as folder:
            _pack(checkpoint, Path(folder, "model"), model)
            client.log_model_artifacts(model.model_id, str(Path(folder, "model")))
    except Exception:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    _add_version(client, uri, run, model, tags, description)


def _add_version(
    client: object, uri: str, run: str, model: object, tags: dict[str, str], description: str
) -> None:
    """A new version of the registered model, which is made on first use."""
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # it is there already
        client.create_registered_model(model.name, description=_model_note(run))
    with _default_store(uri):
        registered = client.create_model_version(
            model.name,
            f"models:/{model.model_id}",
            model.source_run_id,
            tags=tags,
            description=description,
            await_creation_for=0,
            model_id=model.model_id,
        )
    link = json.dumps([{"name": model.name, "version": registered.version}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})


@contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """A SQLite registry looks up `models:/<id>` in the store that the process defaults to."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _model_note(run: str) -> str:
    """How to use the registered model: Markdown for its page."""
    uri = f"models:/capsnet-{run}@latest"
    return (
        f"Reads pictures of handwritten digits with the network of run `{run}`. Input: a column "
        "`image` of PNG or JPEG files in base64. Output: the `digits`, surest first, and the "
        "`lengths` of all ten (of a baseline its probabilities). Each execution of "
        f"`dvc repro train@{run}` adds a version; `@latest` is the newest, not the best.\n\n"
        f"- Serve: `mlflow models serve -m {uri} --env-manager local -p 5001`\n"
        f"- The same network without MLflow: `python -m capsnet.predict "
        f"models/{run}.safetensors image.png`\n"
        f"- Which version is under DVC: its tag `checkpoint.md5` is the md5 of "
        f"`models/{run}.safetensors` in `dvc.lock`."
    )


def _pack(checkpoint: Path, folder: Path, model: object) -> None:
    """Write an MLflow model: capsnet/reading/serving.py, the checkpoint, and capsnet/ to import.

    `model` is MLflow's record of it. Versions are named, not inferred, which would take minutes.
    """
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    outputs = [
        ColSpec(Array(DataType.long), "digits"),
        ColSpec(Array(DataType.double), "lengths"),
        ColSpec(DataType.boolean, "sure"),
        ColSpec(DataType.double, "error", required=False),
        ColSpec(DataType.string, "error_source", required=False),
    ]
    code = folder.parent / "capsnet"
    shutil.copytree(PACKAGE, code, ignore=shutil.ignore_patterns("__pycache__"))
    pyfunc.save_model(
        folder,
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=model.source_run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        ),
        python_model=str(code / "reading" / "serving.py"),
        code_paths=[str(code)],
        artifacts={"checkpoint": str(checkpoint)},
        signature=ModelSignature(Schema([ColSpec(DataType.string, "image")]), Schema(outputs)),
        input_example=pd.DataFrame({"image": [_example_picture()]}),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in SERVED_WITH],
    )


def _example_picture() -> str:
    """A seven, dark on light, as PNG in base64."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (56, 56), 255)
    ImageDraw.Draw(image).line([(14, 12), (42, 12), (26, 46)], fill=0, width=5, joint="curve")
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
