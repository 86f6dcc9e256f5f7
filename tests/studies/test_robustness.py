"""Robustness: the transformed images, their positions, and the errors."""

import pytest
import torch
from torch import nn

from capsnet.data.mnist import Digits
from capsnet.learning.evaluation import Evaluator
from capsnet.nn.capsnet import Prediction
from capsnet.studies.robustness.measure import (
    AMOUNTS,
    COLUMNS,
    pair_rows,
    random_affine,
    robustness_table,
)


class Witness(nn.Module):
    """Predicts 1 if the bounding box of the ink is higher than wide, else 0; keeps its inputs."""

    decoder = None

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        ink = images[:, 0] > 0.5
        upright = ink.any(dim=2).sum(dim=1) > ink.any(dim=1).sum(dim=1)
        scores = torch.zeros(len(images), 10)
        scores[torch.arange(len(images)), upright.long()] = 1
        return Prediction(scores, None)


def measure(model=None, count=20, affnist=None, **changes):
    """The table of upright bars of 16x4 px in the middle of 28x28, of class 1."""
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    images[:, 6:22, 12:16] = 255
    digits = Digits(images, torch.ones(count, dtype=torch.int64))
    evaluator = Evaluator(model or Witness(), digits, torch.float32, 1, 20, 1, 28, 0)
    return robustness_table(evaluator._replace(**changes), 20, affnist)


def test_errors_of_a_bar_by_hand():
    """A bar of 16x4 turned by 60 degrees is 16 sin 60 + 4 cos 60 = 15.9 wide and 16 cos 60 + 4 sin
    60 = 11.5 high: wrong, as by 75 and 90; by 30 degrees it is 11.5 wide and 15.9 high: correct.
    Sheared by 0.6 it is 4 + 0.6 * 16 = 13.6 wide and 16 high: correct. Scale and translation keep
    it upright. At 45 degrees both sides are equal, so this point does not count.
    """
    table = measure(model := Witness(), count=7, batch_size=3)
    wrong = table[(table["error"] == 100) & (table["amount"].abs() != 45)]
    found = set(zip(wrong["transform"], wrong["amount"], strict=True))
    assert found == {("rotation", sign * angle) for sign in (-1, 1) for angle in (60, 75, 90)}
    assert table["error"].iloc[-1] == 0 and (table["examples"] == 7).all()
    assert list(table) == COLUMNS and table["transform"].iloc[-1] == "affnist_like_2px"
    # Each point once, in three batches; four transforms leave the images unchanged at one point.
    points = sum(len(amounts) for amounts in AMOUNTS.values())
    curves = table[table["amount"].notna()]
    assert len(curves) == points and not curves.duplicated(["transform", "amount"]).any()
    assert len(model.seen) == 3 * (points - 3 + 1)


def test_positions_on_a_large_canvas():
    """A digit stands where the task shifts it, the same for each rotation. Translation starts in
    the middle: 8 px to one of four sides, drawn for each digit.
    """
    table = measure(model := Witness(), image_size=40, max_shift=6)
    assert table["transform"].iloc[-1] == "affnist_like" and model.seen[0].shape == (20, 1, 40, 40)
    points = sum(len(amounts) for amounts in AMOUNTS.values())
    assert len(model.seen) == points - 2 + 1  # unchanged where the task puts them, and centred

    def centres(images):
        """Of the ink, (down, right) from the middle of the image."""
        ink = images[:, 0].double() / images.double().sum(dim=(1, 2, 3))[:, None, None]
        axis = torch.arange(40) - 19.5
        down, right = (ink.sum(dim=2) * axis).sum(dim=1), (ink.sum(dim=1) * axis).sum(dim=1)
        return torch.stack([down, right], dim=1)

    rotated = [centres(images) for images in model.seen[:15]]
    assert rotated[7].abs().max() > 4
    for other in rotated:
        torch.testing.assert_close(other, rotated[7], atol=0.3, rtol=0)
    last = centres(model.seen[-2])  # before affNIST's transforms
    assert last.abs().sort(dim=1).values.round().unique(dim=0).tolist() == [[0, 8]]
    assert len(last.round().unique(dim=0)) == 4


def test_a_network_for_one_digit_is_tested_on_pairs(make_evaluator):
    """A network that always answers 0 and 1 finds the digits 0 and 1 of each pair, no others."""

    class ZeroAndOne(nn.Module):
        decoder = None

        def forward(self, images):
            return Prediction(torch.eye(10)[:2].sum(dim=0).expand(len(images), -1), None)

    evaluator = make_evaluator(1, image_size=36, max_shift=4)._replace(model=ZeroAndOne())
    [batch] = evaluator._replace(num_digits=2, batch_size=20).batches(20)
    exact, digits = pair_rows(evaluator)
    assert (exact["transform"], exact["examples"], digits["examples"]) == ("pair", 20, 40)
    assert exact["error"] == 100 * (1 - (batch.labels < 2).all(dim=1).float().mean().item())
    assert digits["error"] == pytest.approx(100 * (batch.labels >= 2).float().mean().item())


def test_random_affine_moves_each_digit_on_its_own_and_repeats(make_evaluator):
    """On the network's canvas, and without touching the global random state."""
    evaluator = make_evaluator(1, image_size=40, max_shift=6)
    images = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8).expand(20, -1, -1)
    evaluator = evaluator._replace(digits=Digits(images, torch.arange(20) % 10))
    state = torch.get_rng_state()
    before, after, predictions = random_affine(evaluator, 30, 0.1)
    assert torch.equal(random_affine(evaluator, 30, 0.1)[1], after)
    assert torch.equal(torch.get_rng_state(), state)
    assert before.shape == after.shape == (20, 40, 40)
    assert len({image.numpy().tobytes() for image in after}) == len(predictions.labels) == 20
