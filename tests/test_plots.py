"""Figures: determinism, extreme inputs and error bars.

test_every_run.py draws every figure.
"""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capsnet.plots import canvas
from capsnet.studies.errors import draw as errors
from capsnet.studies.perturbation.draw import sweeps
from capsnet.studies.reconstructions import draw as reconstructions
from capsnet.studies.reconstructions.measure import Reconstruction
from capsnet.studies.training.draw import training_curve


def curve(**columns) -> pd.DataFrame:
    names = "loss", "classification_loss", "reconstruction_loss", "validation_error"
    table = {key: [2.0, 1.0] for key in (*names, "training_error")} | {"examples": [500, 1000]}
    return pd.DataFrame(table | columns)


def example() -> Reconstruction:
    """A checkerboard, read as it is labelled."""
    board = np.indices((28, 28)).sum(axis=0) % 2.0
    return Reconstruction(board, board[None], board[None], (1,), (1,), (1,), "correct")


def overlaps(count: int) -> pd.DataFrame:
    error = np.arange(count, dtype=float)
    table = {"name": [f"{10 * number} %" for number in range(count)], "examples": 1234}
    return pd.DataFrame(table | {"error": error, "error_low": error / 2, "error_high": error + 1})


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (training_curve, curve(validation_error=np.nan)),
        (training_curve, curve(reconstruction_loss=np.nan)),
        (training_curve, curve(loss=0.0, validation_error=0.0)),
        (errors.pair_errors, np.full((4, 4), np.nan)),
    ],
)
def test_extreme_numbers_are_drawn(draw, table, tmp_path):
    path = tmp_path / "new" / "folder" / "figure.png"
    draw(table, path, title="Title")
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]
    with Image.open(path) as image:
        assert not image.info.keys() & {"Software", "Date", "Creation Time"}
        assert 1600 <= image.width <= 1920 and len(image.convert("RGB").getcolors(1 << 16)) > 20


@pytest.mark.parametrize(
    ("draw", "inputs"),
    [(reconstructions.reconstructions, [example()]), (errors.error_by_overlap, overlaps(3))],
)
def test_equal_input_gives_equal_bytes_whatever_the_users_settings(draw, inputs, tmp_path):
    draw(inputs, tmp_path / "first.png", title="Title")
    with matplotlib.rc_context({"font.size": 30}):
        draw(inputs, tmp_path / "second.png", title="Title")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_error_bars_are_never_negative():
    """5 in [4, 7]: 1 below, 2 above; an interval that does not hold its value has a bar of 0."""
    value, low, high = (pd.Series(column, dtype=float) for column in ([5, 5], [4, 6], [7, 8]))
    below, above = canvas.error_bars(value, low, high)
    assert below.tolist() == [1, 0] and above.tolist() == [2, 3]


def test_long_names_and_small_pictures_keep_apart(tmp_path):
    """Black pictures of 16 px: each pixel is 6 wide, so that a number fits above them, and the gap
    before the first one is white.
    """
    names = ["digit T-shirt/top, dim 12\ncentre right 2.3 px"]
    path, rows = tmp_path / "figure.png", [np.zeros((11, 16, 16))]
    sweeps(rows, np.linspace(-0.25, 0.25, 11), path, names=names, title="Title", largest=4)
    with Image.open(path) as image:
        dark = np.asarray(image.convert("L")) < 128
    band = dark[dark.mean(axis=1) > 0.5]
    pictures = np.flatnonzero(band.all(axis=0))
    assert np.flatnonzero(np.diff(pictures) > 1)[0] == 6 * 16 - 1
    assert not band[:, pictures[0] - canvas.GAP : pictures[0]].any()


def test_a_column_is_as_wide_as_its_heading(tmp_path):
    """Seven letters of 14 px above a picture of 96 px."""
    black, path = np.zeros((96, 96)), tmp_path / "figure.png"
    one = Reconstruction(black, black[None], black[None], (1,), (1,), (1,), "correct")
    reconstructions.reconstructions([one, one], path, title="Title")
    with Image.open(path) as image:
        dark = np.asarray(image.convert("L")) < 128
    starts = np.flatnonzero(np.diff(dark[-100].astype(int)) == 1)[-2:]
    assert np.diff(starts) == 7 * 14 + canvas.GAP
