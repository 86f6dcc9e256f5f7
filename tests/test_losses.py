"""Losses of small examples, each derived beside its number."""

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


ZEROS, ONES, THREE = torch.zeros(1, 10), torch.ones(1, 10), one_hot(3)


@pytest.mark.parametrize(
    ("lengths", "targets", "expected"),
    [
        (ZEROS, THREE, 0.81),  # the present class costs (0.9 - 0)^2, the absent ones nothing
        (ONES, THREE, 3.645),  # the sum, not the mean, of nine absent classes: 0.5 * (1 - 0.1)^2
        (0.4 * THREE, THREE, 0.25),  # (0.9 - 0.4)^2, not 0.5
        (0.1 + 0.8 * THREE, THREE, 0),  # 0.9 and 0.1 are the margins
        (THREE, THREE, 0),  # a softmax over the lengths would leave a loss
        (ZEROS, one_hot(3, 5), 1.62),  # two present classes
        (torch.cat([ZEROS, THREE]), THREE.repeat(2, 1), 0.405),  # the mean over images
    ],
)
def test_margin_loss_by_hand(lengths, targets, expected):
    assert margin_loss(lengths, targets).item() == pytest.approx(expected)


def test_reconstruction_loss_sums_over_pixels_and_digits():
    """Two digits of 28 * 28 pixels, each off by 0.5: 2 * 784 * 0.25 = 392, whatever the batch.
    A mean over the pixels would be 784 times less.
    """
    sources = torch.zeros(3, 2, 28, 28)
    assert reconstruction_loss(sources + 0.5, sources).item() == pytest.approx(392)


@pytest.mark.parametrize(("decoded", "reconstruction"), [(True, 784), (False, 0)])
def test_total_weighs_the_reconstruction(decoded, reconstruction):
    """0.81 for zero lengths, plus 0.0005 * 784 for white where black was wanted, if decoded."""
    parts = ZEROS, one_hot(0), torch.ones(1, 1, 28, 28) if decoded else None
    losses = weighted_losses(
        *parts, torch.zeros(1, 1, 28, 28), classification=margin_loss, reconstruction_weight=0.0005
    )
    expected = 0.81 + 0.0005 * reconstruction, 0.81, reconstruction
    assert [loss.item() for loss in losses] == pytest.approx(expected)


@pytest.mark.parametrize("classification", [margin_loss, softmax_loss, sigmoid_loss])
def test_no_loss_names_a_device(classification):
    """A tensor made on the CPU would fail on the meta device."""
    lengths, images = torch.empty(2, 10, device="meta"), torch.empty(2, 1, 8, 8, device="meta")
    settings = dict(classification=classification, reconstruction_weight=0.0005)
    losses = weighted_losses(lengths, torch.empty_like(lengths), images, images, **settings)
    assert {loss.device.type for loss in losses} == {"meta"}
