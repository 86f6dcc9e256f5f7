"""Robustness: the transformed images, their positions, and the errors."""

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import nn

from capsnet.data.batches import seeded_generator
from capsnet.data.mnist import Digits
from capsnet.learning.evaluation import Evaluator
from capsnet.nn.baseline import BaselineCNN
from capsnet.nn.capsnet import CapsNet, Prediction
from capsnet.studies.robustness import measure as robustness
from capsnet.studies.robustness.measure import COLUMNS, random_affine, robustness_table


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


def bars(count: int = 20) -> Digits:
    """Upright bars of 16x4 px in the middle of 28x28, of class 1."""
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    images[:, 6:22, 12:16] = 255
    return Digits(images, torch.ones(count, dtype=torch.int64))


def measure(model=None, digits=None, num_examples=20, affnist=None, **changes):
    model, digits = model or Witness(), digits or bars()
    evaluator = Evaluator(model, digits, torch.float32, 1, 20, 1, 28, 0)._replace(**changes)
    return robustness_table(evaluator, num_examples, affnist)


def test_the_table_has_every_point_once():
    table = measure()
    assert list(table) == COLUMNS and (table["examples"] == 20).all()
    points = sum(len(amounts) for amounts in robustness.AMOUNTS.values())
    curves = table[table["amount"].notna()]
    assert len(curves) == points and not curves.duplicated(["transform", "amount"]).any()
    assert table["transform"].iloc[-1] == "affnist_like_2px"
    assert (table["error_low"] <= table["error"]).all()
    assert (table["error"] <= table["error_high"]).all()
    assert set(curves["unit"]) == {"degrees", "px/px", "times", "px"}


def test_only_what_makes_a_bar_wide_is_wrong():
    """A bar of 16x4 turned by 60 degrees is 16 sin 60 + 4 cos 60 = 15.9 wide and 16 cos 60 + 4 sin
    60 = 11.5 high: wrong; by 30 degrees it is 11.5 wide and 15.9 high: right. Sheared by 0.6 it is
    4 + 0.6 * 16 = 13.6 wide and 16 high: right. Scaled evenly or moved it stays upright. At 45
    degrees it is as high as wide, which nobody should look at."""
    table = measure()
    wrong = table[(table["error"] == 100) & (table["amount"].abs() != 45)]
    assert set(zip(wrong["transform"], wrong["amount"], strict=True)) == {
        ("rotation", -60),
        ("rotation", 60),
    }
    assert table["error"].iloc[-1] == 0


def test_images_as_they_are_are_tested_once():
    """Once for all four transforms where the task places digits in the middle, as translation does;
    twice where it does not."""
    points = sum(len(amounts) for amounts in robustness.AMOUNTS.values())
    centred, placed = Witness(), Witness()
    measure(centred)
    measure(placed, image_size=40, max_shift=6)
    assert len(centred.seen) == points - 3 + 1  # with affNIST's transforms
    assert len(placed.seen) == points - 2 + 1


def test_on_a_large_canvas_digits_stand_where_the_task_puts_them():
    """But for translation they start in the middle: 8 px to one side, drawn for each digit. The
    same digit stands at the same place, however it is transformed."""
    model = Witness()
    table = measure(model, image_size=40, max_shift=6)
    assert table["transform"].iloc[-1] == "affnist_like" and model.seen[0].shape == (20, 1, 40, 40)

    def places(images):
        """Of the middle of the ink, (down, right) of the middle of the image."""
        ink = images[:, 0].double() / images.double().sum(dim=(1, 2, 3))[:, None, None]
        axis = torch.arange(40) - 19.5
        down, right = (ink.sum(dim=2) * axis).sum(dim=1), (ink.sum(dim=1) * axis).sum(dim=1)
        return torch.stack([down, right], dim=1)

    rotated = [places(images) for images in model.seen[:11]]  # the first curve
    assert rotated[5].abs().max() > 4
    for other in rotated:
        torch.testing.assert_close(other, rotated[5], atol=0.3, rtol=0)
    last = places(model.seen[-2])  # translation by 8; then comes affNIST
    assert last.abs().sort(dim=1).values.round().unique(dim=0).tolist() == [[0, 8]]
    assert len(last.round().unique(dim=0)) == 4


def test_the_same_seed_gives_the_same_images():
    first, again, other = Witness(), Witness(), Witness()
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        measure(model, image_size=40, max_shift=6, seed=seed)
    assert all(map(torch.equal, first.seen, again.seen))
    assert not torch.equal(first.seen[-1], other.seen[-1])


def test_published_affnist_is_measured_where_the_images_fit(tmp_path):
    """Ten bars upright and ten lying, all labelled 1: half are wrong."""
    images = torch.zeros(20, 40, 40, dtype=torch.uint8)
    images[:10, 2:18, 30:34] = 255
    images[10:, 30:34, 2:18] = 255
    fields = {"image": images.flatten(1).numpy().T, "label_int": np.ones((1, 20), np.uint8)}
    savemat(tmp_path / "1.mat", {"affNISTdata": fields})
    table = measure(image_size=40, max_shift=6, affnist=tmp_path / "1.mat")
    assert table["transform"].iloc[-1] == "affnist"
    assert table["error"].iloc[-1] == 50 and table["examples"].iloc[-1] == 20
    assert "affnist" not in set(measure(affnist=tmp_path / "1.mat")["transform"])


def test_no_more_digits_than_there_are():
    assert (measure(digits=bars(7), num_examples=1000, batch_size=3)["examples"] == 7).all()


def test_a_baseline_has_no_decoder_and_is_measured_too(monkeypatch):
    monkeypatch.setattr(robustness, "AMOUNTS", {"rotation": (-20, 0, 20)})
    model = BaselineCNN(image_size=28).eval()
    images = torch.randint(
        0, 256, (2, 28, 28), generator=seeded_generator("noise"), dtype=torch.uint8
    )
    assert len(measure(model, Digits(images, torch.tensor([3, 5])))) == 4


@pytest.mark.parametrize("image_size", [28, 40])
def test_the_affine_test_moves_each_digit_on_its_own_and_repeats(image_size):
    """On the canvas of the network: a network for 40x40 is shown 40x40."""
    torch.manual_seed(0)
    model = CapsNet(
        image_size=image_size, conv_channels=8, primary_types=2, decoder_sizes=None
    ).eval()
    images = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8).expand(30, -1, -1)
    digits = Digits(images, torch.arange(30) % 10)
    evaluator = Evaluator(model, digits, torch.float32, 1, 10, 1, image_size, 6)
    state = torch.get_rng_state()
    (before, after, predictions), (_, again, _) = (
        random_affine(evaluator, 30, 0.1) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(after, again)
    assert before.shape == after.shape == (30, image_size, image_size)
    assert len({image.numpy().tobytes() for image in after}) == 30
    assert len(predictions.labels) == 30
