"""Metrics of small examples, by hand."""

import pytest
import torch

from capsnet import metrics


def lengths_of(*classes: int) -> list[float]:
    return [0.9 if digit in classes else 0.1 for digit in range(10)]


def test_exact_match_wants_both_digits():
    """Labels 3 and 5: {3, 5} is right in either order, {3, 6} earns nothing."""
    lengths = torch.tensor([lengths_of(3, 5), lengths_of(3, 6), lengths_of(5, 3)])
    labels = torch.tensor([[3, 5], [3, 5], [5, 3]])
    assert metrics.exact_match(lengths, labels).tolist() == [True, False, True]


def test_exact_match_of_one_digit_is_the_usual_accuracy():
    lengths = torch.tensor([lengths_of(7), lengths_of(2)])
    assert metrics.exact_match(lengths, torch.tensor([[7], [7]])).tolist() == [True, False]


def test_exact_match_keeps_a_batch_of_one():
    assert metrics.exact_match(torch.tensor([lengths_of(7)]), torch.tensor([[7]])).shape == (1,)


def test_wilson_interval_by_hand():
    """1 of 10 at z = 1.96: centre (0.1 + 3.8415 / 20) / 1.38415 = 0.21102, half width
    1.96 / 1.38415 * sqrt(0.009 + 3.8415 / 400) = 0.19316: 1.79 % to 40.42 %."""
    value, low, high = metrics.wilson_interval(1, 10)
    assert (value, low, high) == pytest.approx((10, 1.787, 40.415), abs=0.01)


def test_wilson_interval_stays_within_0_and_100():
    assert metrics.wilson_interval(0, 50).low == 0 and metrics.wilson_interval(0, 50).high > 0
    assert metrics.wilson_interval(50, 50).high == pytest.approx(100)
    with pytest.raises(ValueError, match="at least 1 example"):
        metrics.wilson_interval(0, 0)


def test_confusion_counts_found_digits_on_the_diagonal_and_missed_ones_beside_it():
    """(3, 5) taken for (3, 6): 3 found, 5 taken for 6. (1, 2) right. (0, 9) taken for (4, 7)."""
    labels = torch.tensor([[3, 5], [1, 2], [9, 0]])
    predictions = torch.tensor([[3, 6], [1, 2], [4, 7]])
    counts = metrics.confusion(predictions, labels, 10)
    expected = {(3, 3): 1, (5, 6): 1, (1, 1): 1, (2, 2): 1, (0, 4): 1, (9, 7): 1}
    assert {
        tuple(cell.tolist()): counts[tuple(cell)].item() for cell in counts.nonzero()
    } == expected


def test_overlap_is_shared_ink_over_the_smaller_digit():
    """A row of 4 pixels and one of 8 that share 2: 2 / 4."""
    sources = torch.zeros(1, 2, 10, 10)
    sources[0, 0, 0, :4] = 1
    sources[0, 1, 0, 2:] = 1
    assert metrics.overlap(sources).item() == 0.5
    assert metrics.overlap(torch.zeros(1, 2, 10, 10)).item() == 0


def test_found_is_per_digit():
    found = metrics.found(torch.tensor([[3, 6]]), torch.tensor([[6, 5]]))
    assert found.tolist() == [[True, False]]
