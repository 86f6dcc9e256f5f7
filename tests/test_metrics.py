"""Metrics of small examples, by hand."""

import pytest
import torch

from capsnet import metrics


def test_exact_match_wants_every_digit():
    """Labels 3 and 5: {3, 5} is right in either order, {3, 6} earns nothing. A batch of one stays
    a batch.
    """
    lengths = torch.full((3, 10), 0.1)
    lengths = lengths.scatter(1, torch.tensor([[3, 5], [3, 6], [5, 3]]), 0.9)
    labels = torch.tensor([[3, 5], [3, 5], [5, 3]])
    assert metrics.exact_match(lengths, labels).tolist() == [True, False, True]
    lengths = torch.eye(10)[[3, 6, 5]]
    found = metrics.exact_match(lengths, torch.tensor([[3], [5], [5]]))
    assert found.tolist() == [True, False, True]
    assert metrics.exact_match(lengths[:1], torch.tensor([[3]])).shape == (1,)


def test_wilson_interval_by_hand():
    """1 of 10 at z = 1.96: centre (0.1 + 3.8415 / 20) / 1.38415 = 0.21102, half width
    1.96 / 1.38415 * sqrt(0.009 + 3.8415 / 400) = 0.19316: 1.79 % to 40.42 %."""
    assert metrics.wilson_interval(1, 10) == pytest.approx((10, 1.787, 40.415), abs=0.01)
    assert metrics.wilson_interval(0, 50)[1] == 0 and metrics.wilson_interval(0, 50)[2] > 0
    assert metrics.wilson_interval(50, 50)[2] == pytest.approx(100)
    with pytest.raises(ValueError, match="at least 1 example"):
        metrics.wilson_interval(0, 0)


def test_confusion_counts_found_digits_on_the_diagonal_and_missed_ones_beside_it():
    """(3, 5) taken for (3, 6): 3 found, 5 taken for 6. (1, 2) right. (0, 9) taken for (4, 7)."""
    labels = torch.tensor([[3, 5], [1, 2], [9, 0]])
    counts = metrics.confusion(torch.tensor([[3, 6], [1, 2], [4, 7]]), labels, 10)
    expected = [[0, 4], [1, 1], [2, 2], [3, 3], [5, 6], [9, 7]]
    assert counts.nonzero().tolist() == expected and counts.sum() == 6


def test_overlap_is_shared_ink_over_the_smaller_digit():
    """A row of 4 pixels and one of 8 that share 2: 2 / 4."""
    sources = torch.zeros(1, 2, 10, 10)
    sources[0, 0, 0, :4] = sources[0, 1, 0, 2:] = 1
    assert metrics.overlap(sources).item() == 0.5
    assert metrics.overlap(torch.zeros(1, 2, 10, 10)).item() == 0


def test_balanced_accuracy_is_the_mean_over_the_classes():
    """8 of class 0 and 2 of class 1, all read as 0: (100 + 0) / 2. Four times as many."""
    labels, predicted = torch.tensor([[0]] * 8 + [[1]] * 2), torch.zeros(10, 1, dtype=torch.int64)
    assert metrics.balanced_accuracy(predicted, labels) == 50
    assert metrics.imbalance(labels, 2) == (1, 0) and metrics.imbalance(labels[6:], 2) is None
