"""What `evaluate` says of lengths and counts, on lengths made up so that the answers are known."""

import pandas as pd
import pytest
import torch
from torch import nn

from capsnet.data.mnist import Digits
from capsnet.evaluation import Outcome
from capsnet.nn.capsnet import Prediction
from capsnet.studies.calibration import probabilities
from stages.calibration import (
    draw_calibration,
    measure_calibration,
    measure_counts,
)


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


def test_digits_are_counted_on_what_is_shown(tmp_path):
    """Shuffled tiles keep their ink, so this network takes them for a digit; all else is right."""
    table, found = measure_counts(
        InkCounter(),
        squares(),
        dtype=torch.float32,
        seed=1,
        num_examples=20,
        batch_size=7,
        num_digits=1,
        image_size=28,
        max_shift=0,
        table=tmp_path / "counts.csv",
    )
    shown = {"nothing": 100, "shuffled": 0, "one_digit": 100, "two_digits": 100}
    assert found == {"count_right": shown}
    written = pd.read_csv(tmp_path / "counts.csv")
    assert len(written) == len(table) == 4 * 19
    found = ["found_0", "found_1", "found_2", "found_more"]
    assert (written[found].sum(axis=1) == written["examples"]).all()


def outcome() -> Outcome:
    """Four examples of digit 3, called 3, 3, 3 and 5, each with length 0.8, the others 0."""
    lengths = torch.zeros(4, 10)
    lengths[range(4), [3, 3, 3, 5]] = 0.8
    return Outcome(lengths, torch.full((4, 1), 3), torch.zeros(4, 1), torch.zeros(4))


def test_lengths_are_held_against_what_is_there(tmp_path):
    """Predictions: 80 promised, 75 kept. All ten: also 36 lengths of 0, of which one digit was
    there: (4 x 5 + 36 x 100 / 36) / 40 = 3.
    """
    table, found = measure_calibration(outcome(), capsules=True, table=tmp_path / "bins.csv")
    assert found["calibration_error"] == pytest.approx(5, abs=1e-4)
    assert found["calibration_error_all"] == pytest.approx(3, abs=1e-4)
    row = table[table["group"] == "predicted digits"].iloc[0]
    assert row["there"] == 75 and row["there_low"] < 75 < row["there_high"]


def test_scores_of_a_baseline_become_probabilities():
    scores = torch.tensor([[0.0, 0.0]])
    assert probabilities(scores, 1).tolist() == [[0.5, 0.5]]
    assert probabilities(scores + 100, 2).tolist() == [[1.0, 1.0]]


def test_the_figure_is_the_same_each_time(tmp_path):
    bins, _ = measure_calibration(outcome(), capsules=True, table=tmp_path / "bins.csv")
    counts = pd.DataFrame({"shown": ["one digit"] * 2, "threshold": [0.5, 0.6], "right": [90, 80]})
    for folder in (tmp_path / "a", tmp_path / "b"):
        draw_calibration(bins, counts, error=5.0, num_digits=1, folder=folder, name="run")
    first, second = (tmp_path / name / "calibration.png" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
