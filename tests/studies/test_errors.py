"""Where the errors are, on predictions made up so that the answers are known."""

import numpy as np
import torch

from capsnet.learning.evaluation import Predictions
from capsnet.studies.errors.measure import confusion_table, error_table, headline, pair_matrix


def predictions_of(
    predictions: list[tuple], labels: list[tuple], overlap: list[float]
) -> Predictions:
    lengths = torch.zeros(len(labels), 10)
    lengths.scatter_(1, torch.tensor(predictions), 1.0)
    return Predictions(
        lengths, torch.tensor(labels), torch.zeros(len(labels), 2), torch.tensor(overlap)
    )


def test_errors_by_digit_pair_and_overlap():
    """(3, 5) right; (5, 3) taken for (3, 6): digit 5 missed once of twice, its pair wrong once of
    twice, one error in each of two bins of overlap.
    """
    predictions = predictions_of([(3, 5), (3, 6)], [(3, 5), (5, 3)], [0.1, 1.0])
    table = error_table(predictions).set_index(["group", "name"])["error"]
    assert table["digit", "3"] == 0 and table["digit", "5"] == 50
    assert table["pair", "3 and 5"] == 50
    assert table["overlap", "0 to 20 %"] == 0 and table["overlap", "80 to 100 %"] == 100
    assert len(table) == 6  # groups without an example have no error
    assert headline(predictions)["error"] == 50


def test_one_digit_has_errors_by_digit_only():
    predictions = Predictions(
        torch.eye(10), torch.arange(10)[:, None], torch.zeros(10, 1), torch.zeros(10)
    )
    table = error_table(predictions)
    assert set(table["group"]) == {"all", "digit"} and table["error"].eq(0).all()


def test_the_pairs_as_a_matrix():
    predictions = predictions_of([(3, 5), (3, 6)], [(3, 5), (5, 3)], [0.1, 1.0])
    matrix = pair_matrix(error_table(predictions))
    assert matrix[3, 5] == matrix[5, 3] == 50 and np.isfinite(matrix).sum() == 2


def test_confusion_table_is_tidy():
    """(5, 3) taken for (3, 6): the 5 was called 6 once, and found once in the other pair."""
    table = confusion_table(predictions_of([(3, 5), (3, 6)], [(3, 5), (5, 3)], [0.1, 1.0]))
    counts = table.set_index(["label", "prediction"])["count"]
    assert len(table) == 100 and counts[3, 3] == 2 and counts[5, 5] == counts[5, 6] == 1
    assert counts.sum() == 4


def test_predictions_are_computed_once():
    predictions = predictions_of([(3, 5), (3, 6)], [(3, 5), (5, 3)], [0.1, 1.0])
    assert (
        predictions.predicted is predictions.predicted
        and predictions.correct is predictions.correct
    )
    assert predictions.correct.tolist() == [True, False]
