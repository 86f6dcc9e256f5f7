"""Errors by group on predictions with known answers."""

import numpy as np
import pytest
import torch

from capsnet.learning.evaluation import Predictions
from capsnet.studies.errors.draw import pair_matrix
from capsnet.studies.errors.measure import confusion_table, error_table, headline


@pytest.fixture
def predictions() -> Predictions:
    """(5, 3) is correct once, and once predicted as (3, 6)."""
    lengths = torch.zeros(2, 10).scatter_(1, torch.tensor([(3, 5), (3, 6)]), 1.0)
    labels, overlap = torch.tensor([(5, 3), (5, 3)]), torch.tensor([0.1, 1.0])
    return Predictions(lengths, labels, torch.zeros(2, 2), overlap)


def test_errors_by_digit_pair_and_overlap(predictions):
    """Digit 5 is missed once of twice, the pair is wrong once of twice, one example in each of two
    bins of overlap. Six groups have an example.
    """
    table = error_table(predictions)
    errors = table.set_index(["group", "name"])["error"]
    assert errors["digit", "3"] == 0 and errors["digit", "5"] == 50
    assert errors["pair", "3 and 5"] == 50
    assert errors["overlap", "0 to 20 %"] == 0 and errors["overlap", "80 to 100 %"] == 100
    assert len(errors) == 6 and headline(predictions)["test_error"] == 50
    matrix = pair_matrix(table)
    assert matrix[3, 5] == matrix[5, 3] == 50 and np.isfinite(matrix).sum() == 2


def test_confusion_table(predictions):
    """The 5 is predicted as 6 once, and found once in the other pair."""
    table = confusion_table(predictions)
    counts = table.set_index(["label", "prediction"])["count"]
    assert len(table) == 100 and counts["3", "3"] == 2 and counts["5", "5"] == counts["5", "6"] == 1
    assert counts.sum() == 4


def test_single_objects_have_errors_by_class_only_with_its_name():
    """Of 62 classes, the letters and digits of EMNIST."""
    names, none = tuple(f"class {n}" for n in range(62)), torch.zeros(62)
    found = Predictions(torch.eye(62), torch.arange(62)[:, None], none[:, None], none)
    assert len(confusion_table(found, names)) == 62**2
    table = error_table(found, names)
    assert set(table["group"]) == {"all", "digit"} and table["error"].eq(0).all()
    assert tuple(table[table["group"] == "digit"]["name"]) == names
