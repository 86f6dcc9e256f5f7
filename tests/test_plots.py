"""Every figure is a readable PNG, the same bytes for the same input, and leaves its input alone."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capsnet.plots import canvas
from capsnet.plots.pictures import notice
from capsnet.studies.errors import draw as errors
from capsnet.studies.perturbation import draw as perturbation
from capsnet.studies.perturbation.measure import PerturbationRow
from capsnet.studies.reconstructions import draw as reconstructions
from capsnet.studies.reconstructions.measure import OverlaidReconstruction, Reconstruction
from capsnet.studies.robustness.draw import transformed
from capsnet.studies.training.draw import training_curve


def content(value: object) -> object:
    """Everything that drawing could change, to compare: arrays and tables by their bytes."""
    if isinstance(value, pd.DataFrame):
        return list(value.columns), value.to_csv()
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: content(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [content(entry) for entry in value]
    return repr(value)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def curve(**columns) -> pd.DataFrame:
    steps = np.arange(1, 6)
    table = {"examples": 500_000 * steps, "loss": 0.3 / steps, "classification_loss": 0.2 / steps}
    table |= {
        "reconstruction_loss": 0.1 / steps,
        "validation_error": 2.0 / steps,
        "training_error": 1.0 / steps,
    }
    return pd.DataFrame(table | {"images_per_second": 1000.0} | columns)


def digits(labels_predictions, size=28):
    picture = images(size, size)
    return [
        Reconstruction(picture, picture**2, label, prediction, label)
        for label, prediction in labels_predictions
    ]


def overlaid(cases, size=36):
    image, two = images(size, size), images(2, size, size)
    return [OverlaidReconstruction(image, two, two / 2, (3, 5), (3, 8), case) for case in cases]


def moved(count, size, predictions):
    pictures = images(2, count, size, size)
    return *pictures, np.zeros(count, dtype=np.int64), np.resize(predictions, count)


def overlaps(count):
    error = np.arange(count, dtype=float)
    names = [f"{10 * number} to {10 * number + 10} %" for number in range(count)]
    table = {"name": names, "examples": 1234 - np.arange(count), "error": error}
    return pd.DataFrame(table | {"error_low": error / 2, "error_high": error + 1})


def sweep(num_dimensions, num_values, size):
    values = np.linspace(-0.25, 0.25, num_values, dtype=np.float32)
    noise = 0.4 + 0.2 * images(num_dimensions, num_values, size, size)  # of an untrained decoder
    return noise, values, [f"moves right {dim}.0 px" for dim in range(num_dimensions)]


def telling(num_digits, size):
    pictures, values, names = sweep(num_digits, 11, size)
    digits = range(num_digits)
    return [PerturbationRow(d, 15, names[d], pictures[d]) for d in digits], values


def changes(num_digits, num_measures, significant=True):
    """Effects of four dimensions in up to eight measures, one of them unknown."""
    names = ["thickness", "slant", "width", "height", "area", "sharpness", "horizontal_centre"]
    keys = [(d, k, m) for d in range(num_digits) for k in range(4) for m in names[:num_measures]]
    table = pd.DataFrame(keys, columns=["digit", "dimension", "measure"])
    effect = 3 * np.random.default_rng(0).standard_normal(len(table))
    effect[0] = np.nan
    shown = significant & (abs(effect) > 1)
    return table.assign(effect=effect, significant=shown, label="moves right 10.0 px")


def pairs(num_classes):
    error = 10 * images(num_classes, num_classes)
    error[np.diag_indices(num_classes)] = np.nan
    return error + error.T


TITLE = {"title": "What there is to see"}
CASES = {
    "curve": (training_curve, [curve()], TITLE),
    "curve without validation": (training_curve, [curve(validation_error=np.nan)], TITLE),
    "curve of a baseline": (training_curve, [curve(reconstruction_loss=0.0)], TITLE),
    "curve, no decoder": (training_curve, [curve(reconstruction_loss=np.nan)], TITLE),
    "curve of one epoch": (training_curve, [curve().head(1)], TITLE),
    "curve down to zero": (training_curve, [curve(loss=0.0, validation_error=0.0)], TITLE),
    "curve from 90 %": (training_curve, [curve(validation_error=[90, 9, 5, 2, 1])], TITLE),
    "digits": (reconstructions.reconstructions, [digits([(5, 3), (2, 2), (7, 7)])], TITLE),
    "digits, no failures": (reconstructions.reconstructions, [digits([(0, 0)] * 14)], TITLE),
    "one digit": (reconstructions.reconstructions, [digits([(1, 1)], size=36)], TITLE),
    "pairs": (
        reconstructions.overlaid_reconstructions,
        [overlaid(["neither", "wrong", "correct"])],
        TITLE,
    ),
    "many pairs": (
        reconstructions.overlaid_reconstructions,
        [overlaid(["correct", "wrong"] * 8)],
        TITLE,
    ),
    "one pair": (reconstructions.overlaid_reconstructions, [overlaid(["correct"], size=28)], TITLE),
    "affine": (transformed, moved(20, 28, [0, 1]), TITLE),
    "affine, all right": (transformed, moved(1, 36, [0]), TITLE),
    "confusion": (errors.confusion, [np.diag(np.arange(980, 990)) + np.eye(10, k=1) * 3], TITLE),
    "no confusion": (errors.confusion, [np.diag([5, 5, 5])], TITLE),
    "pair errors": (errors.pair_errors, [pairs(10)], TITLE),
    "no pairs": (errors.pair_errors, [np.full((4, 4), np.nan)], TITLE),
    "overlap": (errors.error_by_overlap, [overlaps(10)], TITLE),
    "one overlap": (errors.error_by_overlap, [overlaps(1)], TITLE),
    "grid": (
        perturbation.perturbation_grid,
        sweep(4, 11, 28),
        {"digit": 3, "two_sigma": [0.1] * 4},
    ),
    "grid 36x36": (
        perturbation.perturbation_grid,
        sweep(16, 11, 36),
        {"digit": 3, "two_sigma": [0.1] * 16},
    ),
    "small grid": (
        perturbation.perturbation_grid,
        sweep(2, 4, 8),
        {"digit": 0, "two_sigma": [0.1] * 2},
    ),
    "overview": (perturbation.perturbation_overview, telling(4, 28), TITLE),
    "effects": (perturbation.effects, [changes(10, 7)], TITLE),
    "effects of one digit": (perturbation.effects, [changes(1, 2)], TITLE),
    "no effects": (perturbation.effects, [changes(3, 1, significant=False)], TITLE),
    "overview of one": (perturbation.perturbation_overview, telling(1, 36), TITLE),
}


@pytest.mark.parametrize("name", CASES)
def test_readable_repeatable_and_harmless(name, tmp_path):
    """Noise is the hardest to compress: trained networks make smaller files. The user's settings,
    here a font size, change nothing."""
    draw, inputs, words = CASES[name]
    before = content(inputs)
    paths = [tmp_path / "new" / "folder" / "first.png", tmp_path / "second.png"]
    assert draw(*inputs, paths[0], **words) is None
    with matplotlib.rc_context({"font.size": 30}):
        draw(*inputs, paths[1], **words)
    assert content(inputs) == before
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 300_000
    assert [path.name for path in paths[0].parent.iterdir()] == ["first.png"]
    with Image.open(paths[0]) as image:
        assert not image.info.keys() & {"Software", "Date", "Creation Time"}
        assert 1600 <= image.width <= 1920
        assert 300 <= image.height <= 2600
        assert len(image.convert("RGB").getcolors(1 << 16)) > 20


def test_pixels_of_digits_are_exact_squares(tmp_path):
    """A checkerboard of 28x28 alone on a sheet is drawn at 5 screen pixels a pixel: the rows of
    screen pixels inside it hold runs of exactly 5 black or 5 white."""
    board = np.indices((28, 28)).sum(axis=0) % 2.0
    example = Reconstruction(board, board, 1, 1, 1)
    reconstructions.reconstructions([example], tmp_path / "board.png", title="Board")
    with Image.open(tmp_path / "board.png") as image:
        pixels = np.asarray(image.convert("L"))
    left = canvas.MARGIN + 160
    inside = pixels[:, left : left + 140]
    row = np.tile(np.repeat([0, 255], 5), 14)
    assert (inside == row).all(axis=1).sum() == 2 * 14 * 5  # half of the rows of both pictures
    assert (inside == 255 - row).all(axis=1).sum() == 2 * 14 * 5


def test_overlay_adds_light_and_differs_in_lightness():
    """First digit alone is light green, second alone dark red, both pale yellow, none black."""
    first, second = np.array([[1.0, 0, 1, 0]]), np.array([[0.0, 1, 1, 0]])
    green, red, both, none = canvas.overlay(np.stack([first, second]))[0]
    luminance = np.array([0.2126, 0.7152, 0.0722])
    assert green.argmax() == 1
    assert red.argmax() == 0
    np.testing.assert_allclose(both, np.clip(green + red, 0, 1))
    np.testing.assert_array_equal(none, 0)
    assert both @ luminance > green @ luminance > 2 * (red @ luminance)


def test_failures_stand_to_the_right_whatever_the_order(tmp_path):
    shown = digits([(5, 3), (2, 2), (7, 7)])
    reconstructions.reconstructions(shown, tmp_path / "first.png", title="Same")
    reconstructions.reconstructions(shown[1:] + shown[:1], tmp_path / "second.png", title="Same")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: no examples to draw"):
        reconstructions.reconstructions([], tmp_path / "none.png", title="Nothing")
    assert not list(tmp_path.iterdir())


def test_a_notice_stands_in_for_a_figure(tmp_path):
    notice(tmp_path / "notice.png", title="baseline: nothing to perturb", note="No decoder.")
    assert (tmp_path / "notice.png").stat().st_size > 1000


def test_no_figure_needs_pyplot():
    """pyplot keeps global state."""
    for path in (Path(__file__).parent.parent / "capsnet").rglob("*.py"):
        assert "pyplot" not in path.read_text(), path
