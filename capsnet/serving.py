"""The trained network as an MLflow model: pictures in, digits out (models from code, no pickle).

MLflow runs this file when it loads the model; the weights are the artifact `network`. Nothing else
imports it. A picture is a PNG or JPEG, as its bytes or as base64 text; the answer is what
`capsnet.predict` prints.
"""

import base64
import binascii

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from capsnet.handwriting import read_handwriting
from capsnet.recognition import load_reader, read


class DigitReader(PythonModel):
    """A table with a column `image` -> digits (list), lengths (list of ten) and error (text)."""

    def load_context(self, context: PythonModelContext) -> None:
        self.reader = load_reader(context.artifacts["network"])

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        return pd.DataFrame([self._answer(picture) for picture in model_input["image"]])

    def _answer(self, picture: bytes | str) -> dict[str, object]:
        """One picture that cannot be read does not cost the others their answer."""
        try:
            reading = read(self.reader, read_handwriting(to_bytes(picture)))
        except ValueError as error:
            return {"digits": [], "lengths": [], "error": str(error)}
        lengths = [round(float(length), 4) for length in reading.lengths]
        return {"digits": list(reading.digits), "lengths": lengths, "error": ""}


def to_bytes(picture: bytes | str) -> bytes:
    """Raises ValueError for text that is no base64."""
    if isinstance(picture, bytes):
        return picture
    try:
        return base64.b64decode(picture, validate=True)
    except binascii.Error:
        raise ValueError("the image is text, but no base64 of a PNG or JPEG") from None


set_model(DigitReader())
