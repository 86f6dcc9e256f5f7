"""Routing by iteration, and maps of the couplings over the image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from capsnet.config import RunConfig
from capsnet.plots import canvas
from capsnet.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE
from capsnet.plots.pictures import Column, picture_columns
from capsnet.studies.registry import Measured
from capsnet.studies.routing.measure import CouplingMaps

STRIDE = 2  # pixels from one grid position to the next
NUM_CLASSES = 10
CONTRAST = 4  # exponent of the share that is drawn: couplings differ by little


STYLES = {  # others are blue and have no label
    "logit_change": (BLUE, "agreement |u . v|"),
    "logit_change_change": (ORANGE, "its change from the previous iteration"),
    "contributed_coupling": (BLUE, "by contribution"),
    "largest_coupling": (GREEN, "largest"),
    "own_coupling": (ORANGE, "at own positions"),
}
COUPLINGS = ("contributed_coupling", "largest_coupling", "own_coupling")
PANELS = (  # title with values of the first measure, their format, y label, its limit, measures
    ("Logits change by {}", ".4f", "mean |change| of a logit", None, tuple(STYLES)[:2]),
    ("Change of the couplings", "", "mean |change| of a coupling (%)", None, ["coupling_change"]),
    ("Couplings by contribution: {} %", ".0f", "coupling to a true class (%)", 104, COUPLINGS),
    ("Votes that carry 80 %: {}", ".0f", "votes that carry 80 % of a capsule", None, ["votes"]),
    ("Lengths: {}", ".2f", "length of a true class capsule", 1.05, ["length"]),
    ("Error: {} %", ".2f", "error after the iteration (%)", None, ["error"]),
)


def routing(table: pd.DataFrame, path: Path, *, title: str, trained: int) -> None:
    """Six panels over the iterations from the table `routing`: 95 % intervals as bands, and a
    vertical line at the number of iterations in training.
    """
    found = dict(list(table.groupby("measure")))
    with canvas.chart(path, height=1700, title=title) as figure:
        panels = list(figure.subplots(3, 2).flat)
        for axes, (words, form, y_label, limit, measures) in zip(panels, PANELS, strict=True):
            for name in measures:
                rows, (color, label) = found[name], STYLES.get(name, (BLUE, None))
                axes.plot(rows["iteration"], rows["value"], "o-", color=color, label=label)
                band = rows["iteration"], rows["low"], rows["high"]
                axes.fill_between(*band, color=color, alpha=0.2, lw=0)
            values = found[measures[0]]["value"].iloc[:trained]
            ends = values.iloc[[0, -1]] if trained > 1 else values
            words = words.format(" to ".join(f"{value:{form}}" for value in ends))
            axes.set(title=words, xlabel="iteration", ylabel=y_label, ylim=(0, limit))
            label = None if measures is COUPLINGS else "as trained"
            axes.axvline(trained, color=GREY, ls=":", lw=0.8, label=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True)
        panels[2].axhline(100 / NUM_CLASSES, color=GREY, ls="--", lw=0.8)  # uniform
        panels[0].legend()
        panels[2].legend(loc="center right", bbox_to_anchor=(1, 0.37))
        panels[5].legend(loc="lower right")


def couplings(examples: Sequence[CouplingMaps], path: Path, *, title: str) -> None:
    """Each image above its two digits and the coupling maps of the first and the last iteration.

    The hue is each digit's share of the couplings, the brightness the sum of both.
    """
    single = not examples[0].sources[1].any()
    shown = list(dict.fromkeys((0, len(examples[0].maps) - 1)))
    columns = []
    for one in examples:
        heading = ("{}, not {}" if single else "{} and {}").format(*one.digits)
        pictures = [one.image, canvas.overlay(one.sources)]
        pictures += [_map_picture(one, iteration) for iteration in shown]
        columns.append(Column(heading, INK, 0, pictures))
    names = ["input", "true\ndigits", *(f"iteration {iteration + 1}" for iteration in shown)]
    note = "Maps: primary capsules at the centres of their receptive fields, in the colour of the "
    note += "digit with the larger coupling; pale: equal. Contrast is exaggerated: twice the "
    note += f"coupling is {2**CONTRAST} times the colour."
    if single:
        note += " The second digit is the wrong class with the longest capsule."
    key = canvas.color_key()
    picture_columns(columns, path, names=names, title=title, note=note, key=key)


def _map_picture(one: CouplingMaps, iteration: int) -> np.ndarray:
    """The maps of one iteration in two colours, centred on a canvas as large as the image."""
    maps = one.maps[iteration]
    shares = maps / np.maximum(maps.max(axis=0), 1e-12)  # 1 for the larger of the two
    bright = maps.sum(axis=0) / max(one.maps.sum(axis=1).max(), 1e-12)
    picture = np.zeros((2, *one.image.shape))
    cells = (shares**CONTRAST * bright).repeat(STRIDE, axis=1).repeat(STRIDE, axis=2)
    top, left = ((picture.shape[axis] - cells.shape[axis]) // 2 for axis in (1, 2))
    picture[:, top : top + cells.shape[1], left : left + cells.shape[2]] = cells
    return canvas.overlay(picture)


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    if found.pictures is None:
        return
    folder, trained = folder / "figures", config.routing.iterations
    title = f"{run}: routing by iteration"
    routing(found.tables["routing"], folder / "routing.png", title=title, trained=trained)
    title = f"{run}: couplings of each digit over the image"
    couplings(found.pictures, folder / "couplings.png", title=title)
