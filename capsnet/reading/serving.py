"""The MLflow model of a trained network: pictures in, digits out (models-from-code).

`capsnet.tracking` logs this file with the checkpoint and with capsnet/ itself; `mlflow models
serve` and `mlflow models predict` run it. A model is code and weights, never a pickle.
"""

import base64
import binascii

import mlflow
import pandas as pd
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from capsnet.reading.recognition import answer, load_reader, read_file


class DigitReader(mlflow.pyfunc.PythonModel):
    """A table of pictures -> a table of readings, row by row."""

    def load_context(self, context) -> None:
        self._reader = load_reader(context.artifacts["checkpoint"])

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Column `image`: files (PNG, JPEG, ...) in base64, with or without the `data:` of a data
        URL. The columns of the answer are the fields of `capsnet.reading.recognition.answer`.

        What cannot be read is the sender's mistake: MLflow's error names the row and the reason.
        """
        rows = []
        for number, text in enumerate(model_input["image"]):
            try:
                reading = read_file(self._reader, decoded(text))
            except ValueError as error:
                message = f"row {number}: {error}"
                raise mlflow.MlflowException(message, error_code=BAD_REQUEST) from None
            rows.append(answer(reading, self._reader))
        return pd.DataFrame(rows, dtype=object)  # so that None stays None


def decoded(text: str) -> bytes:
    """The bytes that base64 stands for. Raises ValueError if it is not base64."""
    try:
        return base64.b64decode("".join(text.rpartition(",")[2].split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the image is not base64, it starts with {text[:20]!r}") from None


mlflow.models.set_model(DigitReader())
