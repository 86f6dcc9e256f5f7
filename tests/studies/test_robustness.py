"""Robustness: which images are shown, where they stand, what is written and returned."""

import json

import numpy as np
import pandas as pd
import torch
from scipy.io import savemat
from torch import nn

from capsnet.data.batches import seeded_generator
from capsnet.data.mnist import Digits
from capsnet.nn.baseline import BaselineCNN
from capsnet.nn.capsnet import Prediction
from capsnet.studies import robustness
from capsnet.studies.robustness import COLUMNS, measure_robustness
from stages.output import rounded, write_csv, write_json


class Witness(nn.Module):
    """Says 1 where the bounding box of the ink is higher than wide, else 0; keeps what it saw."""

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
    """Upright bars of 16x4 px in the middle of 28x28: the witness calls them 1, as do labels."""
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    images[:, 6:22, 12:16] = 255
    return Digits(images, torch.ones(count, dtype=torch.int64))


def measure(tmp_path, model=None, digits=None, **changes):
    options = dict(
        dtype=torch.float32,
        seed=1,
        num_examples=20,
        batch_size=20,
        image_size=28,
        max_shift=0,
        affnist=None,
        table=tmp_path / "robustness.csv",
        name="mnist",
    )
    results = measure_robustness(model or Witness(), digits or bars(), **(options | changes))
    return results, pd.read_csv(tmp_path / "robustness.csv")


def test_the_table_has_every_point_once(tmp_path):
    results, table = measure(tmp_path)
    assert list(table) == COLUMNS and (table["examples"] == 20).all()
    points = sum(len(amounts) for amounts in robustness.AMOUNTS.values())
    curves = table[table["amount"].notna()]
    assert len(curves) == points and not curves.duplicated(["transform", "amount"]).any()
    assert table["transform"].iloc[-1] == "affnist_like_2px"
    assert (table["error_low"] <= table["error"]).all()
    assert (table["error"] <= table["error_high"]).all()
    assert set(curves["unit"]) == {"degrees", "px/px", "times", "px"}
    write_json(tmp_path / "metrics.json", {"mnist": results})
    assert json.loads((tmp_path / "metrics.json").read_text())["mnist"] == rounded(results)


def test_only_what_makes_a_bar_wide_is_wrong(tmp_path):
    """A bar of 16x4 turned by 60 degrees is 16 sin 60 + 4 cos 60 = 15.9 wide and 16 cos 60 + 4 sin
    60 = 11.5 high: wrong; by 30 degrees it is 11.5 wide and 15.9 high: right. Sheared by 0.6 it is
    4 + 0.6 * 16 = 13.6 wide and 16 high: right. Scaled evenly or moved it stays upright. At 45
    degrees it is as high as wide, which nobody should look at."""
    results, table = measure(tmp_path)
    wrong = table[(table["error"] == 100) & (table["amount"].abs() != 45)]
    assert set(zip(wrong["transform"], wrong["amount"], strict=True)) == {
        ("rotation", -60),
        ("rotation", 60),
    }
    assert results["rotation_20_degrees"] == 0 and results["examples"] == 20
    assert results["affnist_like_2px"]["error"] == 0


def test_images_as_they_are_are_tested_once(tmp_path):
    """Once for all four transforms where the task places digits in the middle, as translation does;
    twice where it does not."""
    points = sum(len(amounts) for amounts in robustness.AMOUNTS.values())
    centred, placed = Witness(), Witness()
    measure(tmp_path, centred)
    measure(tmp_path, placed, image_size=40, max_shift=6)
    assert len(centred.seen) == points - 3 + 1  # with affNIST's transforms
    assert len(placed.seen) == points - 2 + 1


def test_on_a_large_canvas_digits_stand_where_the_task_puts_them(tmp_path):
    """But for translation they start in the middle: 8 px to one side, drawn for each digit. The
    same digit stands at the same place, however it is transformed."""
    model = Witness()
    results, _ = measure(tmp_path, model, image_size=40, max_shift=6)
    assert "affnist_like" in results and model.seen[0].shape == (20, 1, 40, 40)

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


def test_the_same_seed_gives_the_same_images(tmp_path):
    first, again, other = Witness(), Witness(), Witness()
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        measure(tmp_path, model, image_size=40, max_shift=6, seed=seed)
    assert all(map(torch.equal, first.seen, again.seen))
    assert not torch.equal(first.seen[-1], other.seen[-1])


def test_published_affnist_is_measured_where_the_images_fit(tmp_path):
    """Ten bars upright and ten lying, all labelled 1: half are wrong."""
    images = torch.zeros(20, 40, 40, dtype=torch.uint8)
    images[:10, 2:18, 30:34] = 255
    images[10:, 30:34, 2:18] = 255
    fields = {"image": images.flatten(1).numpy().T, "label_int": np.ones((1, 20), np.uint8)}
    savemat(tmp_path / "1.mat", {"affNISTdata": fields})
    results, table = measure(tmp_path, image_size=40, max_shift=6, affnist=tmp_path / "1.mat")
    assert results["affnist"]["error"] == 50 and results["affnist"]["examples"] == 20
    assert table["transform"].iloc[-1] == "affnist"
    results, _ = measure(tmp_path, affnist=tmp_path / "1.mat")
    assert "affnist" not in results


def test_no_more_digits_than_there_are(tmp_path):
    results, table = measure(tmp_path, digits=bars(7), num_examples=1000, batch_size=3)
    assert results["examples"] == 7 and (table["examples"] == 7).all()


def test_a_baseline_has_no_decoder_and_is_measured_too(tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "AMOUNTS", {"rotation": (-20, 0, 20)})
    model = BaselineCNN(image_size=28).eval()
    images = torch.randint(
        0, 256, (2, 28, 28), generator=seeded_generator("noise"), dtype=torch.uint8
    )
    _, table = measure(tmp_path, model, Digits(images, torch.tensor([3, 5])))
    assert len(table) == 4


def test_an_empty_table_can_be_written_and_read(tmp_path):
    write_csv(tmp_path / "empty.csv", pd.DataFrame(columns=COLUMNS))
    assert list(pd.read_csv(tmp_path / "empty.csv")) == COLUMNS
