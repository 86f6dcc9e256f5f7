"""Routing by iteration, and where in the image the votes come from."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from capsnet.config import RunConfig
from capsnet.plots import canvas
from capsnet.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE
from capsnet.plots.pictures import Column, cut, in_color, picture_columns
from capsnet.studies.registry import Measured
from capsnet.studies.routing.measure import VoteMaps

SPREAD = 0.18  # standard deviation, as a share of the pixels that a primary capsule sees
DARK = 0.35  # brightness of the image below the votes

STYLES = {  # others are blue and have no label
    "logit_change": (BLUE, "agreement |u . v|"),
    "logit_change_change": (ORANGE, "its own change"),
    "contributed_coupling": (BLUE, "by contribution"),
    "largest_coupling": (GREEN, "largest"),
    "own_coupling": (ORANGE, "at own positions"),
}
COUPLINGS = ("contributed_coupling", "largest_coupling", "own_coupling")
PANELS = (  # title with values of the first measure, their format, y label, its limit, measures
    ("Mean change of a logit: {}", ".4f", "|change|", None, tuple(STYLES)[:2]),
    ("Mean change of a coupling", "", "|change| (points)", None, ["coupling_change"]),
    ("Coupling to a true class: {} %", ".0f", "coupling (%)", 104, COUPLINGS),
    ("Votes that carry 80 % of a true class: {}", ".0f", "votes", None, ["votes"]),
    ("Length of a true class: {}", ".2f", "length", 1.05, ["length"]),
    ("Error: {} %", ".2f", "error (%)", None, ["error"]),
)


def routing(found: Measured, path: Path, *, title: str, trained: int) -> None:
    """Six panels over the iterations; a vertical line at the number of iterations in training."""
    table, num_classes = found.tables["routing"], len(found.classes)
    measured = dict(list(table.groupby("measure")))
    note = f"Means over {table['examples'].max():,} test examples with 95 % intervals. Dotted: "
    note += f"{trained} iteration{'s' * (trained > 1)}, as trained. Dashed: equal couplings."
    with canvas.chart(path, height=1700, title=title, note=note) as figure:
        panels = list(figure.subplots(3, 2).flat)
        for axes, (words, form, y_label, limit, measures) in zip(panels, PANELS, strict=True):
            for name in measures:
                rows, (color, label) = measured[name], STYLES.get(name, (BLUE, None))
                axes.plot(rows["iteration"], rows["value"], "o-", color=color, label=label)
                band = rows["iteration"], rows["low"], rows["high"]
                axes.fill_between(*band, color=color, alpha=0.2, lw=0)
            values = measured[measures[0]]["value"].iloc[:trained]
            ends = values.iloc[[0, -1]] if trained > 1 else values
            words = words.format(" to ".join(f"{value:{form}}" for value in ends))
            axes.set(title=words, xlabel="iteration", ylabel=y_label, ylim=(0, limit))
            axes.axvline(trained, color=GREY, ls=":", lw=0.8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True)
            if len(measures) > 1:
                canvas.legend_below(axes, ncols=3)
        panels[2].axhline(100 / num_classes, color=GREY, ls="--", lw=0.8)  # uniform


def votes(examples: Sequence[VoteMaps], path: Path, *, title: str, classes: Sequence[str]) -> None:
    """Each image above its true digits and the places of the votes for two digits."""
    single = not examples[0].sources[1].any()
    columns = []
    for one in examples:
        words = "{}, not {}" if single else "{} and {}"
        heading = cut(words.format(*(classes[digit] for digit in one.digits)))
        pictures = [*in_color([one.image]), canvas.overlay(one.sources), *_places(one)]
        columns.append(Column(heading, INK, 0, pictures))
    names = ["input", "true\ndigits", "votes\nfor first", "votes\nfor second"]
    note = "Votes: share of the class capsule that comes from each place of the image, after the "
    note += "trained iterations; the largest share of each picture is brightest."
    if single:
        note += " The second digit is the wrong class with the longest capsule."
    key = canvas.color_key()
    picture_columns(columns, path, names=names, title=title, note=note, key=key)


def _places(one: VoteMaps) -> Iterator[np.ndarray]:
    """The votes for each digit in its colour over the dark image, centred on the canvas."""
    from scipy.ndimage import gaussian_filter

    for place, votes in enumerate(one.maps):
        cells = votes.repeat(one.stride, axis=0).repeat(one.stride, axis=1)
        grey = one.image.max(axis=0) if one.image.ndim == 3 else one.image
        picture = np.zeros((2, *grey.shape))
        top, left = ((picture.shape[axis + 1] - cells.shape[axis]) // 2 for axis in (0, 1))
        picture[place, top : top + cells.shape[0], left : left + cells.shape[1]] = cells
        spread = gaussian_filter(picture, SPREAD * one.width, axes=(1, 2))
        color = canvas.overlay(spread / max(spread.max(), 1e-12))
        yield np.clip(color + DARK * grey[..., None], 0, 1)


def draw(found: Measured, folder: Path, config: RunConfig) -> None:
    if found.pictures is None:
        return
    folder, trained = folder / "figures", config.routing.iterations
    title = f"{config.title}: routing by iteration"
    routing(found, folder / "routing.png", title=title, trained=trained)
    title = f"{config.title}: where the votes for each digit come from"
    votes(found.pictures, folder / "votes.png", title=title, classes=found.classes)
