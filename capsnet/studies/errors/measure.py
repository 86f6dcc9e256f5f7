"""Test error by digit, by pair of digits and by overlap, and the confusion matrix."""

import itertools

import pandas as pd

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.archives import TEN_DIGITS
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.studies.registry import Measured

LISTED = 100_000  # examples in the table of single examples, at most


def headline(predictions: Predictions) -> dict[str, float]:
    """Test error in percent with its interval; mean reconstruction error (squared pixels). Where
    the classes have different numbers of examples also the balanced accuracy in percent. Each name
    starts with `test_`.
    """
    numbers = metrics.error_row(predictions.correct)
    del numbers["examples"]
    if metrics.imbalance(predictions.labels, predictions.lengths.shape[1]):
        found = metrics.balanced_accuracy(predictions.predicted, predictions.labels)
        numbers["balanced_accuracy"] = found
    numbers["reconstruction_error"] = predictions.reconstruction_error.mean().item()
    return {f"test_{name}": value for name, value in numbers.items()}


def error_table(predictions: Predictions, classes: tuple[str, ...] = TEN_DIGITS) -> pd.DataFrame:
    """Error in percent with its 95 % interval, of all examples and by group; `classes`: names.

    Columns group (all, digit, pair, overlap), name, examples, error, error_low, error_high. Empty
    groups have no row.
    """
    correct, labels = predictions.correct, predictions.labels
    hits = metrics.found(predictions.predicted, labels)
    groups = [("all", "all", correct)]
    groups += [("digit", name, hits[labels == digit]) for digit, name in enumerate(classes)]
    if labels.shape[1] > 1:
        low, high = labels.min(dim=1).values, labels.max(dim=1).values
        for one, other in itertools.combinations(range(len(classes)), 2):
            name = f"{classes[one]} and {classes[other]}"
            groups.append(("pair", name, correct[(low == one) & (high == other)]))
        for name, inside in metrics.overlap_bins(predictions.overlap):
            groups.append(("overlap", name, correct[inside]))
    return pd.DataFrame(
        {"group": group, "name": name, **metrics.error_row(right)}
        for group, name, right in groups
        if len(right)
    )


def confusion_table(
    predictions: Predictions, classes: tuple[str, ...] = TEN_DIGITS
) -> pd.DataFrame:
    """Columns label, prediction, count: a row for each cell of the confusion matrix."""
    counts = metrics.confusion(predictions.predicted, predictions.labels, len(classes))
    cells = pd.MultiIndex.from_product([classes, classes], names=["label", "prediction"])
    return cells.to_frame(index=False).assign(count=counts.flatten().numpy())


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Errors by group, the confusion matrix, and the first examples one by one."""
    listed = pd.DataFrame({"right": predictions.correct[:LISTED].int()})
    classes = evaluator.digits.classes
    tables = {"errors": error_table(predictions, classes), "examples": listed}
    return Measured(tables | {"confusion": confusion_table(predictions, classes)})
