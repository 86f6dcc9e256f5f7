"""Figures: size, determinism, extreme inputs, and the numbers in their titles."""

from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from capsnet.plots import canvas
from capsnet.studies.calibration.draw import calibration
from capsnet.studies.errors import draw as errors
from capsnet.studies.perturbation import draw as perturbation
from capsnet.studies.perturbation.measure import Shown
from capsnet.studies.reconstructions import draw as reconstructions
from capsnet.studies.reconstructions.measure import Reconstruction
from capsnet.studies.robustness import draw as robustness
from capsnet.studies.routing import draw as routing
from capsnet.studies.routing.measure import UNITS, VoteMaps
from capsnet.studies.seeds import draw as seeds
from capsnet.studies.training.draw import training_curve
from tests.studies.test_seeds import two_rows


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
    ends = {"error_low": table["error"] / 2, "error_high": table["error"] * 1.5}
    return table.assign(examples=100, **ends)


def iterations() -> pd.DataFrame:
    """Every measure of the routing rises from 1 to 10."""
    table = pd.DataFrame(product(UNITS, range(1, 11)), columns=["measure", "iteration"])
    table = table.assign(value=table["iteration"].astype(float), examples=100)
    return table.assign(low=table["value"] - 1, high=table["value"] + 1)


def maps(num_digits: int) -> list[VoteMaps]:
    """Votes at one place of a grid of 6x6."""
    sources, votes = images(2, 28, 28), np.zeros((2, 6, 6))
    sources[num_digits:] = 0
    votes[:, 0, 0] = 1
    return [VoteMaps(images(28, 28), sources, votes, (3, 5), 17, 2)]


def sweep(num_dimensions: int, num_values: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.linspace(-0.25, 0.25, num_values, dtype=np.float32)
    return 0.4 + 0.2 * images(num_dimensions, num_values, size, size), values


def digit_sweeps(found: list[str]) -> tuple[pd.DataFrame, Shown]:
    """Digit 3, whose dimensions have these effects."""
    table = pd.DataFrame({"digit": 3, "dimension": range(len(found)), "name": found})
    grid, values = sweep(len(found), 11, 28)
    return table, Shown({}, values, values, {}, {3: grid}, {3: [0.1] * len(found)})


def reliability() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two bins of predicted digits, 10 points overconfident; two thresholds for counting."""
    bins = pd.DataFrame({"group": "predicted digits", "length": [0.55, 0.95], "examples": [10, 50]})
    bins = bins.assign(low=[0.5, 0.9], high=[0.6, 1.0], there=100 * bins["length"] - 10)
    counts = pd.DataFrame({"shown": "one digit", "threshold": [0.5, 0.9], "right": [98, 50]})
    return bins.assign(there_low=bins["there"] - 5, there_high=100.0), counts


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
    "routing": (routing.routing, [iterations()], TITLE | {"trained": 3}),
    "votes for one digit": (routing.votes, [maps(1)], TITLE),
    "votes for two digits": (routing.votes, [maps(2)], TITLE),
    "digit": (perturbation.draw_digit, digit_sweeps(["slant +3°", "none"] * 8), TITLE),
    "confusion": (errors.confusion, [np.diag(np.arange(980, 984)) + np.eye(4, k=1) * 3], TITLE),
    "no pair errors": (errors.pair_errors, [np.full((4, 4), np.nan)], TITLE),
    "overlap": (errors.error_by_overlap, [overlaps(3)], TITLE),
    "grid": (perturbation.sweeps, sweep(16, 11, 36), TITLE | {"names": ["a"] * 16, "largest": 4}),
    "effects": (perturbation.effects, [changes(2, 7)], TITLE),
    "robustness": (robustness.robustness_curves, [{"a": transforms(0)}], TITLE),
    "robustness of many runs": (
        robustness.robustness_curves, [{f"run_with_a_long_name_{n}": transforms(n)
                                        for n in range(6)}], TITLE
    ),
    "calibration": (
        calibration, reliability(), TITLE | {"trained_on": "one digit", "score": "length"}
    ),
}  # fmt: skip


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Every figure that is drawn."""
    found = []
    make = canvas.Figure
    monkeypatch.setattr(canvas, "Figure", lambda **sizes: found.append(make(**sizes)) or found[-1])
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_figure_fits_a_screen_and_its_words_hide_nothing(name, tmp_path, figures):
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
    for axes in figures[0].axes:
        if axes.axison and axes.get_visible():
            check_words(axes, figures[0].bbox.x1)


def test_the_words_of_the_figures_of_a_study_hide_nothing(tmp_path, figures):
    assert len(list(seeds.draw(two_rows([30.0, 32.0], [33.0, 35.0]), tmp_path))) == 3
    for figure in figures:
        check_words(figure.axes[0], figure.bbox.x1)
    legend = figures[0].axes[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == [
        "CapsNet, r = 3, n = 2",
        "CapsNet, r = 1, n = 2",
    ]


def check_words(axes: Axes, right: float) -> None:
    """A legend stands below the axes, a label of the y axis beside them, all left of `right`."""
    inside, label = axes.get_window_extent(), axes.yaxis.label.get_window_extent()
    if axes.get_ylabel():
        assert inside.y0 - 1 <= label.y0 and label.y1 <= inside.y1 + 1, axes.get_ylabel()
    assert axes.title.get_window_extent().x1 <= right
    if axes.get_legend():
        legend = axes.get_legend().get_window_extent()
        assert legend.y1 < axes.xaxis.label.get_window_extent().y0 and legend.x1 < right


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


def test_overlay_adds_light_in_the_colours_of_the_explorer():
    """The first digit alone is blue, the second orange, both the sum, none black."""
    first, second = np.array([[1.0, 0, 1, 0]]), np.array([[0.0, 1, 1, 0]])
    blue, orange, both, none = canvas.overlay(np.stack([first, second]))[0]
    style = (Path(canvas.__file__).parents[1] / "explore/web/style.css").read_text()
    for name, color in (("first", blue), ("second", orange)):
        rgb = ", ".join(f"{255 * part:.0f}" for part in color)
        assert f".{name} {{ background: rgb({rgb}); }}" in style
    np.testing.assert_allclose(both, np.clip(blue + orange, 0, 1))
    np.testing.assert_array_equal(none, 0)


def test_headings_say_what_is_true_read_and_drawn():
    one = examples(["wrong"], 1)[0]
    assert reconstructions.heading(one) == "true 3\nread 8\ndrawn 3"
    assert reconstructions.heading(examples(["wrong"], 2)[0]).splitlines()[1] == "read 8, 5"


def test_dimensions_and_measures_without_an_effect_are_left_out(tmp_path, monkeypatch):
    """Of three dimensions only 1 has an effect. A digit without any leaves no file, not even an
    old one; a table without any gives a notice.
    """
    drawn, path = {}, tmp_path / "digit.png"
    monkeypatch.setattr(perturbation, "sweeps", lambda rows, *_, **words: drawn.update(words))
    perturbation.draw_digit(*digit_sweeps(["none", "slant +3°", "none"]), path, **TITLE)
    assert drawn["names"] == ["dim 1, 2 sd: 0.10\nslant +3°"]
    assert drawn["left_out"] == "No visible change: dimensions 0, 2."
    path.touch()
    perturbation.draw_digit(*digit_sweeps(["none"]), path, **TITLE)
    assert not path.exists()
    monkeypatch.setattr(perturbation, "notice", lambda _, **words: drawn.update(words))
    perturbation.effects(changes(3, 1, significant=False), path, **TITLE)
    assert drawn["note"] == "No dimension changes thickness visibly and significantly."


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
