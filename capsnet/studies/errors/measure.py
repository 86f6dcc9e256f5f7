"""Test error by digit, by pair of digits and by overlap, and the confusion matrix."""

import itertools

import numpy as np
import pandas as pd

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.archives import NUM_CLASSES
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.studies.registry import Measured

LISTED = 100_000  # examples in the table of single examples, at most


def headline(predictions: Predictions) -> dict[str, float]:
    """Test error in percent with its interval; mean reconstruction error (squared pixels)."""
    numbers = metrics.error_row(predictions.correct)
    del numbers["examples"]
    return numbers | {"reconstruction_error": predictions.reconstruction_error.mean().item()}


def error_table(predictions: Predictions) -> pd.DataFrame:
    """Error in percent with its 95 % interval, of all examples and by group.

    Columns group (all, digit, pair, overlap), name, examples, error, error_low, error_high. Empty
    groups have no row.
    """
    correct, labels = predictions.correct, predictions.labels
    hits = metrics.found(predictions.predicted, labels)
    groups = [("all", "all", correct)]
    groups += [("digit", str(digit), hits[labels == digit]) for digit in range(NUM_CLASSES)]
    if labels.shape[1] > 1:
        low, high = labels.min(dim=1).values, labels.max(dim=1).values
        for one, other in itertools.combinations(range(NUM_CLASSES), 2):
            groups.append(("pair", f"{one} and {other}", correct[(low == one) & (high == other)]))
        for name, inside in metrics.overlap_bins(predictions.overlap):
            groups.append(("overlap", name, correct[inside]))
    return pd.DataFrame(
        {"group": group, "name": name, **metrics.error_row(right)}
        for group, name, right in groups
        if len(right)
    )


def confusion_table(predictions: Predictions) -> pd.DataFrame:
    """Columns label, prediction, count: a row for each of the 100 cells of the confusion matrix."""
    counts = metrics.confusion(predictions.predicted, predictions.labels, NUM_CLASSES)
    true, predicted = np.divmod(np.arange(NUM_CLASSES**2), NUM_CLASSES)
    return pd.DataFrame({"label": true, "prediction": predicted, "count": counts.flatten().numpy()})


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Errors by group, the confusion matrix, and the first examples one by one."""
    listed = pd.DataFrame({"right": predictions.correct[:LISTED].int()})
    tables = {"errors": error_table(predictions), "confusion": confusion_table(predictions)}
    return Measured(tables | {"examples": listed})
