"""Reliability, its expected error and the counting of digits, with numbers worked out by hand."""

import pytest
import torch

from capsnet.studies.calibration import (
    count_digits,
    expected_calibration_error,
    reliability,
    scramble,
)


def test_bins_hold_what_falls_into_them():
    """Of ten bins 0.15 falls into the second, 0.95 and 1.0 into the last, one right."""
    confidences = torch.tensor([0.15, 0.95, 1.0])
    bins = reliability(confidences, torch.tensor([False, True, False]))
    assert bins.examples.tolist() == [1, 2] and bins.right.tolist() == [0, 1]
    torch.testing.assert_close(bins.low, torch.tensor([0.1, 0.9], dtype=torch.float64))
    torch.testing.assert_close(bins.confidence[1].item(), 0.975)


def test_expected_error_is_the_mean_gap():
    """Four at 0.9 of which two are right: a gap of 40 points; one at 0.1, wrong: 10. (4 x 40 + 10)
    / 5 = 34.
    """
    confidences = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.1])
    right = torch.tensor([True, True, False, False, False])
    assert expected_calibration_error(reliability(confidences, right)) == pytest.approx(34)


def test_a_perfect_forecast_has_no_error():
    """Of ten with confidence 0.7 seven are right."""
    bins = reliability(torch.full((10,), 0.7), torch.arange(10) < 7)
    assert expected_calibration_error(bins) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_only_probabilities_are_taken(wrong):
    with pytest.raises(ValueError, match="wanted 0 to 1"):
        reliability(torch.tensor([0.5, wrong]), torch.tensor([True, True]))


def test_digits_are_counted_above_the_threshold():
    lengths = torch.tensor([[0.9, 0.6, 0.4], [0.1, 0.1, 0.1]])
    assert count_digits(lengths).tolist() == [2, 0]
    assert count_digits(lengths, 0.3).tolist() == [3, 0]


def test_scrambling_keeps_the_tiles_and_moves_them():
    images = torch.arange(2 * 144).view(2, 1, 12, 12).float()
    mixed = scramble(images, tile=4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mixed.flatten(1).sort(dim=1).values, images.flatten(1))
    assert not torch.equal(mixed, images)
    first = mixed[0, 0, 0, :4]  # a row of a tile stays together: neighbours stay neighbours
    assert (first[1:] - first[:-1] == 1).all()
    with pytest.raises(ValueError, match="do not fill"):
        scramble(images, tile=5, generator=torch.Generator())
