"""Where the errors are: by digit, by pair of digits, by overlap, and what was taken for what."""

import itertools

import numpy as np
import pandas as pd

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.archives import NUM_CLASSES
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.studies.registry import Measured

LISTED = 100_000  # examples whose answer is listed one by one, at most


def headline(predictions: Predictions) -> dict[str, float]:
    """Test error in percent with its interval; squared pixel differences of a reconstruction."""
    numbers = metrics.error_row(predictions.correct)
    del numbers["examples"]
    return numbers | {"reconstruction_error": predictions.reconstruction_error.mean().item()}


def error_table(predictions: Predictions) -> pd.DataFrame:
    """Error in percent with its interval, of all examples and by group: one tidy table.

    Columns group (all, digit, pair, overlap), name, examples, error, error_low, error_high. A
    group without an example has no row.
    """
    correct, labels, overlap = predictions.correct, predictions.labels, predictions.overlap
    hits = metrics.found(predictions.predicted, labels)
    groups = [("all", "all", correct)]
    groups += [("digit", str(digit), hits[labels == digit]) for digit in range(NUM_CLASSES)]
    if labels.shape[1] > 1:
        low, high = labels.min(dim=1).values, labels.max(dim=1).values
        for one, other in itertools.combinations(range(NUM_CLASSES), 2):
            groups.append(("pair", f"{one} and {other}", correct[(low == one) & (high == other)]))
        for name, inside in metrics.overlap_bins(overlap):
            groups.append(("overlap", name, correct[inside]))
    return pd.DataFrame(
        {"group": group, "name": name, **metrics.error_row(right)}
        for group, name, right in groups
        if len(right)
    )


def confusion_table(predictions: Predictions) -> pd.DataFrame:
    """A row for each true and each predicted digit, with how often the one was called the other."""
    counts = metrics.confusion(predictions.predicted, predictions.labels, NUM_CLASSES)
    true, predicted = np.divmod(np.arange(NUM_CLASSES**2), NUM_CLASSES)
    return pd.DataFrame({"label": true, "prediction": predicted, "count": counts.flatten().numpy()})


def pair_matrix(table: pd.DataFrame) -> np.ndarray:
    """The errors of the pairs of digits in an error table: [j, j], NaN where there is no pair."""
    errors = np.full((NUM_CLASSES, NUM_CLASSES), np.nan)
    pairs = table[table["group"] == "pair"]
    for name, error in zip(pairs["name"], pairs["error"], strict=True):
        one, other = map(int, name.split(" and "))
        errors[one, other] = errors[other, one] = error
    return errors


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Errors by group, which digit was taken for which, and the first examples one by one."""
    listed = pd.DataFrame({"right": predictions.correct[:LISTED].int()})
    tables = {"errors": error_table(predictions), "confusion": confusion_table(predictions)}
    return Measured(tables | {"examples": listed})
