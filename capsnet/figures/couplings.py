"""Routing seen: its numbers by iteration, and which part of an image each digit claims."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from capsnet.figures.canvas import (
    BLUE,
    FIRST_DIGIT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SECOND_DIGIT,
    chart,
    overlay,
)
from capsnet.figures.pictures import Column, picture_columns

STRIDE = 2  # pixels from one place of the grid to the next
NUM_CLASSES = 10
CONTRAST = 4  # the power of a share that is drawn: the couplings differ by little


def routing(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Rows (iteration, measure, value, low, high): logit change (Figure A.1), entropy in bits
    beside that of even couplings, agreement as a cosine, and where a digit's couplings go (%).
    The last axis does not start at zero: what it shows is small.
    """
    even = np.log2(NUM_CLASSES)
    with chart(path, height=1200, title=title) as figure:
        changes, entropies, agreements, shares = figure.subplots(2, 2).flat
        change = _line(changes, table, "logit_change", BLUE)
        changes.set(ylabel="mean |change| of a logit", ylim=(0, None))
        changes.set_title(f"Logits change by {_from_to(change, '.4f')} (Figure A.1)")
        entropy = _line(entropies, table, "entropy", BLUE)
        entropies.axhline(even, color=GREY, ls="--", lw=0.8, label="even couplings")
        entropies.set(ylabel="entropy of the couplings (bits)", ylim=(0, 1.05 * even))
        entropies.set_title(f"Couplings: {_from_to(entropy, '.3f')} bits")
        entropies.legend(loc="lower left")
        agreement = _line(agreements, table, "agreement", BLUE)
        agreements.set(ylabel="cosine of vote and capsule", ylim=(min(0, agreement.min()), 1))
        agreements.set_title(f"Agreement with the true digits: {_from_to(agreement, '.3f')}")
        own = _line(shares, table, "own_coupling", GREEN, "its own capsule")
        if _values(table, "other_coupling").any():
            _line(shares, table, "other_coupling", ORANGE, "the other digit's")
        absent = _line(shares, table, "absent_coupling", INK, "each digit not there")
        shares.set(ylabel="coupling at a digit's places (%)", title="No place sees one digit alone")
        if np.isfinite(own).all():
            low, high = min(own.min(), absent.min()), max(own.max(), absent.max())
            room = max(0.1 * high, 0.3 * (high - low))  # for the legend
            shares.set(ylim=(low - room, high + 2 * room))
            shares.set_title(f"To a digit's own capsule: {_from_to(own, '.1f')} %")
        shares.axhline(100 / 2**even, color=GREY, ls="--", lw=0.8, label="even couplings")
        shares.legend(ncols=2, loc="upper left")
        for axes in (changes, entropies, agreements, shares):
            axes.set_xlabel("iteration")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True)


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
    key = {"first digit": FIRST_DIGIT, "second digit": SECOND_DIGIT}
    key["both"] = np.clip(FIRST_DIGIT + SECOND_DIGIT, 0, 1)
    picture_columns(columns, path, names=names, title=title, note=note, key=key)


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


def _values(table: pd.DataFrame, name: str) -> np.ndarray:
    return table.loc[table["measure"] == name, "value"].to_numpy()


def _line(axes: Axes, table: pd.DataFrame, name: str, color: str, label: str = "") -> np.ndarray:
    rows = table[table["measure"] == name]
    axes.plot(rows["iteration"], rows["value"], "o-", color=color, label=label or None)
    axes.fill_between(rows["iteration"], rows["low"], rows["high"], color=color, alpha=0.2, lw=0)
    return rows["value"].to_numpy()


def _from_to(values: np.ndarray, form: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{values[0]:{form}} to {values[-1]:{form}}"
