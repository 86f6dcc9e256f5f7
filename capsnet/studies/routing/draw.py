"""Routing seen: its numbers by iteration, and which part of an image each digit claims."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from capsnet.config import RunConfig
from capsnet.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    chart,
    color_key,
    overlay,
)
from capsnet.plots.pictures import Column, picture_columns
from capsnet.studies.registry import Measured

STRIDE = 2  # pixels from one place of the grid to the next
NUM_CLASSES = 10
CONTRAST = 4  # the power of a share that is drawn: the couplings differ by little


def routing(table: pd.DataFrame, path: Path, *, title: str, trained: int) -> None:
    """Rows (iteration, measure, value, low, high), measures as the study of the routing has them.

    Six panels over the iterations; bands: 95 % intervals, a line: those that the network was
    `trained` with.
    """
    with chart(path, height=1700, title=title) as figure:
        logits, changes, couplings, votes, lengths, errors = figure.subplots(3, 2).flat
        change = _line(logits, table, "logit_change", BLUE, "by this iteration: |u . v|")
        _line(logits, table, "logit_change_change", ORANGE, "difference from the one before")
        logits.set(ylabel="mean |change| of a logit", ylim=(0, None))
        logits.set_title(f"Logits change by {_from_to(change[:trained], '.4f')}")
        _line(changes, table, "coupling_change", BLUE)
        changes.set(ylabel="mean |change| of a coupling (points)", ylim=(0, None))
        changes.set_title("Couplings against those before")
        found = _line(couplings, table, "contributed_coupling", BLUE, "by contribution")
        _line(couplings, table, "largest_coupling", GREEN, "the largest")
        _line(couplings, table, "own_coupling", ORANGE, "at its place")
        couplings.axhline(100 / NUM_CLASSES, color=GREY, ls="--", lw=0.8)  # even
        couplings.set(ylabel="coupling to a digit that is there (%)", ylim=(0, 104))
        couplings.set_title(f"Couplings by contribution: {_from_to(found[:trained], '.0f')} %")
        number = _line(votes, table, "votes", BLUE)
        votes.set(ylabel="votes that carry 80 % of a capsule", ylim=(0, None))
        votes.set_title(f"Votes that carry 80 %: {_from_to(number[:trained], '.0f')}")
        length = _line(lengths, table, "length", BLUE)
        lengths.set(ylabel="length of a digit's capsule", ylim=(0, 1.05))
        lengths.set_title(f"Lengths: {_from_to(length[:trained], '.2f')}")
        error = _line(errors, table, "error", BLUE)
        errors.set(ylabel="error if one stopped here (%)", ylim=(0, None))
        errors.set_title(f"Error: {_from_to(error[:trained], '.2f')} %")
        for axes in (logits, changes, couplings, votes, lengths, errors):
            label = None if axes is couplings else "as trained"
            axes.axvline(trained, color=GREY, ls=":", lw=0.8, label=label)
            axes.set_xlabel("iteration")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True)
        logits.legend()
        couplings.legend(loc="center right", bbox_to_anchor=(1, 0.37))
        errors.legend(loc="lower right")


def couplings(examples: Sequence, path: Path, *, title: str) -> None:
    """Under each image [h, w] its two `digits`, clean (`sources` [2, h, w]), and who claims what in
    the first and the last iteration (`maps` [r, 2, rows, columns] of coupling mass): the hue is the
    share of the couplings, the brightness the mass of both.
    """
    single = not examples[0].sources[1].any()
    shown = list(dict.fromkeys((0, len(examples[0].maps) - 1)))
    columns = []
    for one in examples:
        heading = ("{}, not {}" if single else "{} and {}").format(*one.digits)
        pictures = [one.image, overlay(one.sources)]
        pictures += [_claimed(one, iteration) for iteration in shown]
        columns.append(Column(heading, INK, 0, pictures))
    names = ["input", "true\ndigits", *(f"iteration {iteration + 1}" for iteration in shown)]
    note = "Below: primary capsules, each at the middle of what it sees, coloured by the digit to "
    note += "which it is coupled more; pale where to both alike. Leanings are exaggerated: "
    note += f"twice the coupling shows as {2**CONTRAST} times the colour."
    if single:
        note += " The second digit is the wrong one with the longest capsule."
    picture_columns(columns, path, names=names, title=title, note=note, key=color_key())


def _claimed(one, iteration: int) -> np.ndarray:
    """The maps of one iteration in two colours, as large as the image, each place of the grid where
    its field of view has its middle: two pixels apart, as many from every edge.
    """
    maps = one.maps[iteration]
    shares = maps / np.maximum(maps.max(axis=0), 1e-12)  # 1 for the larger of the two
    bright = maps.sum(axis=0) / max(one.maps.sum(axis=1).max(), 1e-12)
    claimed = np.zeros((2, *one.image.shape))
    cells = (shares**CONTRAST * bright).repeat(STRIDE, axis=1).repeat(STRIDE, axis=2)
    top, left = ((claimed.shape[axis] - cells.shape[axis]) // 2 for axis in (1, 2))
    claimed[:, top : top + cells.shape[1], left : left + cells.shape[2]] = cells
    return overlay(claimed)


def _line(axes: Axes, table: pd.DataFrame, name: str, color: str, label: str = "") -> np.ndarray:
    rows = table[table["measure"] == name]
    axes.plot(rows["iteration"], rows["value"], "o-", color=color, label=label or None)
    axes.fill_between(rows["iteration"], rows["low"], rows["high"], color=color, alpha=0.2, lw=0)
    return rows["value"].to_numpy()


def _from_to(values: np.ndarray, form: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{values[0]:{form}} to {values[-1]:{form}}"


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    if found.pictures is None:
        return
    folder, trained = folder / "figures", config.routing.iterations
    title = f"{run}: what happens in each iteration of the routing"
    routing(found.tables["routing"], folder / "routing.png", title=title, trained=trained)
    title = f"{run}: which part of the image each digit claims"
    couplings(found.pictures, folder / "couplings.png", title=title)
