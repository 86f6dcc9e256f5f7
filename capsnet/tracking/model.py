"""The registered model: its packages, its description and its best version."""

from collections.abc import Iterable

SERVED_WITH = (
    "mlflow", "torch", "numpy", "numba", "safetensors", "scikit-image", "pillow", "pandas",
)  # fmt: skip
ABOUT_MODEL = """Names what pictures show. `champion` is the version with the lowest validation
error among those trained on the largest data set. Serve it on port 5001:

    mlflow models serve -m models:/{name}@champion --env-manager local -p 5001

The input has one column, `image`: a picture file in base64. The fields of the answer:

{fields}
"""
ANSWER = {  # of the served model: two examples, where None makes a field optional; and its meaning
    "digits": ([[7], [1, 7]], "numbers of the classes read, the longest capsule first"),
    "classes": ([["7"], ["1", "7"]], "their names"),
    "lengths": ([[0.5], [0.5]], "of all capsules, from 0 to 1; a baseline's probabilities"),
    "rejected": ([False, True], "whether the picture may show none of the classes"),
    "reason": ([None, "why"], "why it is rejected, else null"),
    "error": ([1.5, None], "wrong answers of this network in %, null if unknown"),
    "error_source": (["test", None], "the error is of `test` or of `validation` examples"),
}


def best_version(versions: Iterable) -> str | None:
    """The number of the version with the lowest validation error, the newest of several.

    Errors on different data do not compare: only versions of the largest data set count.
    """
    known = [version for version in versions if "validation_error" in version.tags]

    def rank(version) -> tuple[float, ...]:
        size, error = (float(version.tags[tag]) for tag in ("data.digits", "validation_error"))
        return -size, error, -int(version.version)

    return min(known, key=rank).version if known else None
