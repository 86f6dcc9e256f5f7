"""Reliability, its expected error and the counting of digits, with numbers worked out by hand."""

import pytest
import torch
from torch import nn

from capsnet.data.mnist import Digits
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.nn.capsnet import Prediction
from capsnet.studies.calibration.measure import (
    count_table,
    expected_calibration_error,
    probabilities,
    reliability,
    reliability_table,
    scramble,
)


def error(confidences: torch.Tensor, right: torch.Tensor) -> float:
    table = reliability(confidences, right).assign(group="predicted digits")
    return expected_calibration_error(table)


def test_bins_hold_what_falls_into_them():
    """Of ten bins 0.15 falls into the second, 0.95 and 1.0 into the last, one right."""
    confidences = torch.tensor([0.15, 0.95, 1.0])
    bins = reliability(confidences, torch.tensor([False, True, False]))
    assert bins["examples"].tolist() == [1, 2] and bins["there"].tolist() == [0, 50]
    assert bins["low"].tolist() == [0.1, 0.9] and bins["high"].tolist() == [0.2, 1.0]
    assert bins["length"].iloc[1] == pytest.approx(0.975)


def test_expected_error_is_the_mean_gap():
    """Four at 0.9 of which two are right: a gap of 40 points; one at 0.1, wrong: 10. (4 x 40 + 10)
    / 5 = 34.
    """
    confidences = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.1])
    assert error(confidences, torch.tensor([True, True, False, False, False])) == pytest.approx(34)


def test_a_perfect_forecast_has_no_error():
    """Of ten with confidence 0.7 seven are right."""
    assert error(torch.full((10,), 0.7), torch.arange(10) < 7) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_only_probabilities_are_taken(wrong):
    with pytest.raises(ValueError, match="wanted 0 to 1"):
        reliability(torch.tensor([0.5, wrong]), torch.tensor([True, True]))


def test_scrambling_keeps_the_tiles_and_moves_them():
    images = torch.arange(2 * 144).view(2, 1, 12, 12).float()
    mixed = scramble(images, tile=4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mixed.flatten(1).sort(dim=1).values, images.flatten(1))
    assert not torch.equal(mixed, images)
    first = mixed[0, 0, 0, :4]  # a row of a tile stays together: neighbours stay neighbours
    assert (first[1:] - first[:-1] == 1).all()
    with pytest.raises(ValueError, match="do not fill"):
        scramble(images, tile=5, generator=torch.Generator())


class InkCounter(nn.Module):
    """One capsule of length 0.9 for each hundred bright pixels, the others 0.1."""

    decoder = None

    def forward(self, images):
        digits = images.flatten(1).gt(0.5).sum(dim=1, keepdim=True) // 100
        lengths = torch.where(torch.arange(10) < digits, 0.9, 0.1)
        return Prediction(lengths, lengths.unsqueeze(2))


def squares() -> Digits:
    """Twenty digits of 10 x 10 bright pixels, far enough apart to be hidden by no other."""
    images = torch.zeros(20, 28, 28, dtype=torch.uint8)
    images[::2, :10, :10] = 255
    images[1::2, -10:, -10:] = 255
    return Digits(images, torch.arange(20) % 2)


def test_digits_are_counted_on_what_is_shown():
    """Shuffled tiles keep their ink, so this network takes them for a digit; all else is right."""
    evaluator = Evaluator(InkCounter(), squares(), torch.float32, 1, 7, 1, 28, 0)
    table = count_table(evaluator, 20)
    right = table[table["threshold"] == 0.5].set_index("shown")["right"]
    assert right.tolist() == [100, 0, 100, 100] and len(table) == 4 * 19
    found = ["found_0", "found_1", "found_2", "found_more"]
    assert (table[found].sum(axis=1) == table["examples"]).all()


def predictions_of() -> Predictions:
    """Four examples of digit 3, called 3, 3, 3 and 5, each with length 0.8, the others 0."""
    lengths = torch.zeros(4, 10)
    lengths[range(4), [3, 3, 3, 5]] = 0.8
    return Predictions(lengths, torch.full((4, 1), 3), torch.zeros(4, 1), torch.zeros(4))


def test_lengths_are_held_against_what_is_there():
    """Predictions: 80 promised, 75 kept. All ten: also 36 lengths of 0, of which one digit was
    there: (4 x 5 + 36 x 100 / 36) / 40 = 3.
    """
    table = reliability_table(predictions_of(), capsules=True)
    assert expected_calibration_error(table) == pytest.approx(5, abs=1e-4)
    assert expected_calibration_error(table, "all ten digits") == pytest.approx(3, abs=1e-4)
    row = table[table["group"] == "predicted digits"].iloc[0]
    assert row["there"] == 75 and row["there_low"] < 75 < row["there_high"]


def test_scores_of_a_baseline_become_probabilities():
    scores = torch.tensor([[0.0, 0.0]])
    assert probabilities(scores, 1).tolist() == [[0.5, 0.5]]
    assert probabilities(scores + 100, 2).tolist() == [[1.0, 1.0]]
