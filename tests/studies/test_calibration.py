"""Reliability, expected calibration error and counting, with numbers worked out by hand."""

import pytest
import torch
from torch import nn

from capsnet.data.mnist import Digits
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.nn.capsnet import Prediction
from capsnet.studies.calibration.gap import calibration_error
from capsnet.studies.calibration.measure import count_table, reliability, reliability_table


def test_bin_edges():
    """Of ten bins 0.15 falls into the second, 0.95 and 1.0 into the last, one of them correct."""
    bins = reliability(torch.tensor([0.15, 0.95, 1.0]), torch.tensor([False, True, False]))
    assert bins["examples"].tolist() == [1, 2] and bins["there"].tolist() == [0, 50]
    assert bins["low"].tolist() == [0.1, 0.9] and bins["high"].tolist() == [0.2, 1.0]
    assert bins["length"].iloc[1] == pytest.approx(0.975)


@pytest.mark.parametrize(
    ("confidences", "hits", "error", "side"),
    [
        ([0.9] * 4 + [0.1], [True] * 2 + [False] * 3, 34, "overconfident"),
        ([0.7] * 10, [True] * 9 + [False], 20, "underconfident"),
    ],
)
def test_calibration_error_is_the_mean_gap(confidences, hits, error, side):
    """Four at 0.9 of which two are correct: a gap of 40 points; one wrong at 0.1: 10; (4 x 40 + 10)
    / 5 = 34. Ten at 0.7 of which nine are correct: 20 points.
    """
    table = reliability(torch.tensor(confidences), torch.tensor(hits))
    assert calibration_error(table.assign(group="predicted digits")) == (pytest.approx(error), side)


def test_groups_of_the_reliability_table():
    """Four examples of digit 3, predicted 3, 3, 3 and 5 with length 0.8: 80 expected, 75 observed.
    All ten: also 36 lengths of 0 with one digit present: (4 x 5 + 36 x 100 / 36) / 40 = 3.
    """
    lengths = torch.zeros(4, 10)
    lengths[range(4), [3, 3, 3, 5]] = 0.8
    found = Predictions(lengths, torch.full((4, 1), 3), torch.zeros(4, 1), torch.zeros(4))
    table = reliability_table(found, capsules=True)
    assert calibration_error(table)[0] == pytest.approx(5, abs=1e-4)
    assert calibration_error(table, "all ten digits")[0] == pytest.approx(3, abs=1e-4)
    row = table[table["group"] == "predicted digits"].iloc[0]
    assert row["there"] == 75 and row["there_low"] < 75 < row["there_high"]


class InkCounter(nn.Module):
    """One capsule of length 0.9 for each hundred bright pixels, the others 0.1."""

    decoder = None

    def forward(self, images):
        digits = images.flatten(1).gt(0.5).sum(dim=1, keepdim=True) // 100
        lengths = torch.where(torch.arange(10) < digits, 0.9, 0.1)
        return Prediction(lengths, lengths.unsqueeze(2))


def test_digits_are_counted():
    """Digits are separate squares of 100 px. Shuffled tiles keep their ink, so this network counts
    one digit where there is none; all else is correct.
    """
    images = torch.zeros(20, 28, 28, dtype=torch.uint8)
    images[::2, :10, :10] = images[1::2, -10:, -10:] = 255
    digits = Digits(images, torch.arange(20) % 2)
    table = count_table(Evaluator(InkCounter(), digits, torch.float32, 1, 7, 1, 28, 0), 20)
    right = table[table["threshold"] == 0.5].set_index("shown")["right"]
    assert right.tolist() == [100, 0, 100, 100] and len(table) == 4 * 19
    found = ["found_0", "found_1", "found_2", "found_more"]
    assert (table[found].sum(axis=1) == table["examples"]).all()
