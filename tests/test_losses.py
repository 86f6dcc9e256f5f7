"""Losses of small examples, each derived in the docstring of its test."""

import pytest
import torch

from capsnet.losses import (
    margin_loss,
    reconstruction_loss,
    sigmoid_loss,
    softmax_loss,
    weighted_losses,
)


def one_hot(*classes: int) -> torch.Tensor:
    return torch.zeros(1, 10).index_fill_(1, torch.tensor(classes), 1.0)


def test_margin_loss_of_zero_lengths():
    """All lengths zero: the present class costs (0.9 - 0)^2 = 0.81, the absent ones nothing."""
    assert margin_loss(torch.zeros(1, 10), one_hot(3)).item() == pytest.approx(0.81)


def test_margin_loss_sums_over_the_classes():
    """All lengths one: the present class costs nothing, each of nine absent ones
    0.5 * (1 - 0.1)^2 = 0.405, together 3.645. A mean over classes would give 0.3645."""
    assert margin_loss(torch.ones(1, 10), one_hot(3)).item() == pytest.approx(3.645)


def test_margin_loss_is_squared():
    """One present class of length 0.4 costs (0.9 - 0.4)^2 = 0.25, not 0.5."""
    assert margin_loss(0.4 * one_hot(3), one_hot(3)).item() == pytest.approx(0.25)


def test_margin_loss_is_zero_between_the_margins():
    """A length of 0.9 where the digit is and 0.1 where it is not costs nothing."""
    assert margin_loss(0.1 + 0.8 * one_hot(2), one_hot(2)).item() == pytest.approx(0, abs=1e-12)


def test_margin_loss_takes_two_digits():
    """Two present classes of length zero cost 2 * 0.81."""
    assert margin_loss(torch.zeros(1, 10), one_hot(3, 5)).item() == pytest.approx(1.62)


def test_margin_loss_is_a_mean_over_images():
    """One image of zero lengths (0.81) and one perfect one (0): 0.405."""
    lengths, targets = torch.cat([torch.zeros(1, 10), one_hot(1)]), one_hot(1).repeat(2, 1)
    assert margin_loss(lengths, targets).item() == pytest.approx(0.405)


def test_margin_loss_applies_no_softmax():
    """A softmax over the lengths would leave a loss for a perfect answer."""
    assert margin_loss(one_hot(7), one_hot(7)).item() == 0


def test_reconstruction_loss_sums_over_pixels_and_digits():
    """Two digits of 28 * 28 pixels, each off by 0.5: 2 * 784 * 0.25 = 392, whatever the batch.
    A mean over the pixels would be 784 times less."""
    sources = torch.zeros(3, 2, 28, 28)
    assert reconstruction_loss(sources + 0.5, sources).item() == pytest.approx(392)


def test_total_weighs_the_reconstruction():
    """0.81 for zero lengths, plus 0.0005 * 784 * 1 for white where black was wanted: 1.202."""
    losses = weighted_losses(
        torch.zeros(1, 10),
        one_hot(0),
        torch.ones(1, 1, 28, 28),
        torch.zeros(1, 1, 28, 28),
        classification=margin_loss,
        reconstruction_weight=0.0005,
    )
    assert losses.total.item() == pytest.approx(0.81 + 0.392)
    assert losses.classification.item() == pytest.approx(0.81)
    assert losses.reconstruction.item() == pytest.approx(784)


def test_without_a_decoder_the_total_is_the_classification():
    losses = weighted_losses(
        torch.zeros(1, 10),
        one_hot(0),
        None,
        torch.zeros(1, 1, 28, 28),
        classification=margin_loss,
        reconstruction_weight=0.0005,
    )
    assert losses.total.item() == pytest.approx(0.81) and losses.reconstruction.item() == 0


def test_cross_entropies_of_equal_scores():
    """Ten equal scores: softmax gives log 10; sigmoid gives log 2 for each of the ten classes."""
    scores = torch.zeros(4, 10)
    targets = one_hot(1).repeat(4, 1)
    assert softmax_loss(scores, targets).item() == pytest.approx(2.302585)
    assert sigmoid_loss(scores, targets).item() == pytest.approx(6.931472)


def test_margin_loss_gradient_in_double():
    lengths = torch.rand(3, 10, dtype=torch.double, requires_grad=True)
    targets = one_hot(4).double().repeat(3, 1)
    assert torch.autograd.gradcheck(lambda lengths: margin_loss(lengths, targets), lengths)
