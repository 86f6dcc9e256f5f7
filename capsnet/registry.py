"""The trained network as a registered MLflow model, `capsnet-<run>`: what `mlflow models serve` and
`mlflow models predict` answer with.

A model is a folder: the weights, the code of `capsnet` (`serving.py` is what runs), the signature,
an example. It is an artifact of the training run, and a version of the registered model points to
it. MLflow itself keeps the alias `latest` for the newest version and lets nobody set it.

Deliberately without `mlflow.pyfunc.log_model`: that logs to the active run of the process.
"""

import base64
import io
import re
import shutil
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
SERVED = ("torch", "numpy", "numba", "safetensors", "scikit-image", "pillow", "pandas", "mlflow")
FOLDER = "model"  # among the artifacts of the run
DESCRIPTION = (
    "Reads handwritten digits: run `{run}`, trained by `dvc repro train@{run}`; its results of "
    "record are in `reports/runs/{run}/`, `dvc exp show` lists it beside the others. Every "
    "training that ran is a version; `models:/{name}@latest` is the newest.\n\n"
    "One column `image`: PNG or JPEG as base64 text, one or two digits of any size. Answer: the "
    "digits, the lengths of all ten capsules, and an error where a picture cannot be read."
)


def register(client: object, run_id: str, checkpoint: Path, run: str) -> str:
    """Log the network as a model of the training run `run_id`, add a version; return its number."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / FOLDER
        save(model, checkpoint)
        client.log_artifacts(run_id, str(model), FOLDER)
    name = f"capsnet-{run}"
    description = DESCRIPTION.format(run=run, name=name)
    try:
        client.create_registered_model(name, description=description)
    except MlflowException:  # it is there from an earlier training
        client.update_registered_model(name, description)
    source = f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}"
    words = f"Trained by `dvc repro train@{run}` as MLflow run {run_id}."
    return str(client.create_model_version(name, source, run_id, description=words).version)


def save(folder: Path, checkpoint: Path) -> None:
    """Write the model's folder: what `mlflow models serve -m <folder>` takes."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    answer = [
        ColSpec(Array(DataType.long), "digits"),
        ColSpec(Array(DataType.double), "lengths"),
        ColSpec(DataType.string, "error"),
    ]
    with tempfile.TemporaryDirectory() as place:
        code = Path(place) / "capsnet"
        shutil.copytree(ROOT / "capsnet", code, ignore=shutil.ignore_patterns("__pycache__"))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(code / "serving.py"),
            artifacts={"network": str(checkpoint)},
            code_paths=[str(code)],
            pip_requirements=requirements(),
            signature=ModelSignature(Schema([ColSpec(DataType.string, "image")]), Schema(answer)),
            input_example=pd.DataFrame({"image": [example()]}),
        )


def requirements() -> list[str]:
    """Of requirements.txt what serving needs, with its versions."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    return [pin for pin in pins if re.split(r"[=;<> ]", pin)[0] in SERVED]


def example() -> str:
    """A drawn one, as a user would send it: base64 of a PNG, dark on light."""
    picture = Image.new("L", (140, 140), 255)
    ImageDraw.Draw(picture).line([(80, 25), (60, 115)], fill=20, width=12)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
