"""Figures: size, determinism, extreme inputs, and the numbers in their titles."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capsnet.plots import canvas
from capsnet.studies.calibration.draw import calibration
from capsnet.studies.errors import draw as errors
from capsnet.studies.perturbation import draw as perturbation
from capsnet.studies.reconstructions import draw as reconstructions
from capsnet.studies.reconstructions.measure import Reconstruction
from capsnet.studies.robustness import draw as robustness
from capsnet.studies.training.draw import training_curve


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def curve(**columns) -> pd.DataFrame:
    steps = np.arange(1, 6)
    names = ("loss", "classification_loss", "reconstruction_loss", "validation_error")
    table = {"examples": 500_000 * steps, "training_error": 1 / steps}
    return pd.DataFrame(table | {name: 2 / steps for name in names} | columns)


def examples(cases: list[str], num_digits: int, size: int = 28) -> list[Reconstruction]:
    image, digits = images(size, size), images(num_digits, size, size)
    right, wrong = (3, 5)[:num_digits], (8, 5)[:num_digits]
    return [
        Reconstruction(image, digits, digits / 2, right, wrong if case == "wrong" else right, right,
                       case)
        for case in cases
    ]  # fmt: skip


def overlaps(count: int) -> pd.DataFrame:
    error = np.arange(count, dtype=float)
    names = [f"{10 * number} to {10 * number + 10} %" for number in range(count)]
    table = {"name": names, "examples": 1234, "error": error}
    return pd.DataFrame(table | {"error_low": error / 2, "error_high": error + 1})


def changes(num_digits: int, num_measures: int, significant: bool = True) -> pd.DataFrame:
    """Effects of four dimensions, one of them unknown."""
    names = ["thickness", "slant", "width", "height", "area", "sharpness", "horizontal_centre"]
    keys = [(d, k, m) for d in range(num_digits) for k in range(4) for m in names[:num_measures]]
    table = pd.DataFrame(keys, columns=["digit", "dimension", "measure"])
    effect = 3 * np.random.default_rng(0).standard_normal(len(table))
    effect[0] = np.nan
    shown = significant & (abs(effect) > 1)
    return table.assign(effect=effect, significant=shown, label="moves right 10.0 px")


def transforms(factor: float) -> pd.DataFrame:
    """`factor` percent error at the first amount of each transform, twice that at the second."""
    amounts = {"rotation": [-60, -20, 0, 20, 60], "shear": [-0.2, 0, 0.2], "scale": [0.8, 1, 1.2]}
    rows = [("affnist_like", np.nan, 5 * factor)]
    for transform, values in (amounts | {"translation": [0, 4]}).items():
        rows += [(transform, amount, factor * (1 + n)) for n, amount in enumerate(values)]
    table = pd.DataFrame(rows, columns=["transform", "amount", "error"])
    return table.assign(error_low=table["error"] / 2, error_high=table["error"] * 1.5)


def reliability() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two bins of predicted digits, 10 points overconfident; two thresholds for counting."""
    bins = pd.DataFrame({"group": "predicted digits", "length": [0.55, 0.95], "examples": [10, 50]})
    bins["there"] = 100 * bins["length"] - 10
    counts = pd.DataFrame({"shown": "one digit", "threshold": [0.5, 0.9], "right": [98, 50]})
    return bins.assign(there_low=bins["there"] - 5, there_high=100.0), counts


def sweep(num_dimensions: int, num_values: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.linspace(-0.25, 0.25, num_values, dtype=np.float32)
    return 0.4 + 0.2 * images(num_dimensions, num_values, size, size), values


TITLE = {"title": "Title"}
CASES = {
    "training": (training_curve, [curve()], TITLE),
    "training without validation": (training_curve, [curve(validation_error=np.nan)], TITLE),
    "training, no decoder": (training_curve, [curve(reconstruction_loss=np.nan)], TITLE),
    "training down to zero": (training_curve, [curve(loss=0.0, validation_error=0.0)], TITLE),
    "digits": (reconstructions.single, [examples(["wrong", "correct"], 1)], TITLE),
    "pairs": (
        reconstructions.overlaid, [examples(["neither", "wrong", "correct"] * 6, 2, 36)], TITLE
    ),
    "affine": (
        robustness.transformed, [(*images(2, 4, 28, 28), np.zeros(4, int), np.arange(4))], TITLE
    ),
    "confusion": (errors.confusion, [np.diag(np.arange(980, 984)) + np.eye(4, k=1) * 3], TITLE),
    "no pair errors": (errors.pair_errors, [np.full((4, 4), np.nan)], TITLE),
    "overlap": (errors.error_by_overlap, [overlaps(3)], TITLE),
    "grid": (perturbation.sweeps, sweep(16, 11, 36), TITLE | {"names": ["a"] * 16, "largest": 4}),
    "effects": (perturbation.effects, [changes(2, 7)], TITLE),
    "no effects": (perturbation.effects, [changes(3, 1, significant=False)], TITLE),
    "robustness": (robustness.robustness_curves, [{"a": transforms(0)}], TITLE),
    "robustness of many runs": (
        robustness.robustness_curves, [{f"run_with_a_long_name_{n}": transforms(n)
                                        for n in range(6)}], TITLE
    ),
    "calibration": (calibration, reliability(), TITLE | {"trained_on": "one digit"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_figure_has_the_size_of_a_screen_and_few_bytes(name, tmp_path):
    """Noise compresses worst, so the figures of trained networks are smaller."""
    draw, inputs, words = CASES[name]
    path = tmp_path / "new" / "folder" / "figure.png"
    draw(*inputs, path, **words)
    assert path.stat().st_size < 300_000
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]
    with Image.open(path) as image:
        assert not image.info.keys() & {"Software", "Date", "Creation Time"}
        assert 1600 <= image.width <= 1920 and 300 <= image.height <= 2600
        assert len(image.convert("RGB").getcolors(1 << 16)) > 20


@pytest.mark.parametrize("name", ["digits", "overlap"])
def test_equal_input_gives_equal_bytes_whatever_the_users_settings(name, tmp_path):
    draw, inputs, words = CASES[name]
    draw(*inputs, tmp_path / "first.png", **words)
    with matplotlib.rc_context({"font.size": 30}):
        draw(*inputs, tmp_path / "second.png", **words)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_pixels_of_digits_are_exact_squares(tmp_path):
    """A checkerboard of 28x28 is drawn at 5 screen pixels a pixel: the rows of screen pixels inside
    it hold runs of exactly 5 black or 5 white, half of the rows of both pictures each.
    """
    board = np.indices((28, 28)).sum(axis=0) % 2.0
    example = Reconstruction(board, board[None], board[None], (1,), (1,), (1,), "correct")
    reconstructions.single([example], tmp_path / "board.png", title="Board")
    with Image.open(tmp_path / "board.png") as image:
        pixels = np.asarray(image.convert("L"))
    left = canvas.MARGIN + 160
    inside, row = pixels[:, left : left + 140], np.tile(np.repeat([0, 255], 5), 14)
    assert (inside == row).all(axis=1).sum() == 2 * 14 * 5
    assert (inside == 255 - row).all(axis=1).sum() == 2 * 14 * 5


def test_overlay_adds_light_and_differs_in_lightness():
    """The first digit alone is light green, the second dark red, both pale yellow, none black."""
    first, second = np.array([[1.0, 0, 1, 0]]), np.array([[0.0, 1, 1, 0]])
    green, red, both, none = canvas.overlay(np.stack([first, second]))[0]
    luminance = np.array([0.2126, 0.7152, 0.0722])
    assert green.argmax() == 1 and red.argmax() == 0
    np.testing.assert_allclose(both, np.clip(green + red, 0, 1))
    np.testing.assert_array_equal(none, 0)
    assert both @ luminance > green @ luminance > 2 * (red @ luminance)


def test_error_bars_are_never_negative():
    """5 in [4, 7]: 1 below, 2 above; an interval that does not hold its value has a bar of 0."""
    value, low, high = (pd.Series(column, dtype=float) for column in ([5, 5], [4, 6], [7, 8]))
    below, above = canvas.error_bars(value, low, high)
    assert below.tolist() == [1, 0] and above.tolist() == [2, 3]


def test_robustness_title_has_the_error_at_the_ends_of_affnists_range():
    """At -20 and 20 degrees 2 and 4 % are wrong, 3 % on average; twice as many for the second."""
    first, second = (rows[rows["transform"] == "rotation"] for rows in map(transforms, (1, 2)))
    panel = robustness.PANELS["rotation"]
    assert robustness.headline({"a": first}, panel) == "3.0 % error if rotated by 20 degrees"
    both = robustness.headline({"b": second, "a": first}, panel)
    assert both == "Error if rotated by 20 degrees:\n3.0 % (a) to 6.0 % (b)"


def test_zero_stands_below_every_interval():
    """Half of the lowest end, 0.5 %; 0.5 where all errors are zero."""
    assert robustness.zero_position(transforms(1)) == 0.25
    assert robustness.zero_position(transforms(0)) == 0.5


@pytest.mark.parametrize(
    ("draw", "nothing"), [(reconstructions.single, []), (robustness.robustness_curves, {})]
)
def test_nothing_to_draw_is_an_error_and_leaves_no_file(draw, nothing, tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: no (examples|runs) to draw"):
        draw(nothing, tmp_path / "none.png", title="Nothing")
    assert not list(tmp_path.iterdir())


def test_no_figure_needs_pyplot():
    """pyplot keeps global state."""
    for path in (Path(__file__).parent.parent / "capsnet").rglob("*.py"):
        assert "pyplot" not in path.read_text(), path
