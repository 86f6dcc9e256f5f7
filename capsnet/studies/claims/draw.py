"""A figure for each claim. A network has the same colour in all three."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from capsnet.nn.registry import NETWORKS
from capsnet.plots.canvas import BLUE, GREEN, GREY, INK, PURPLE, chart, log_scale

LABELS = {"size": 9}
STYLES = {  # solid with capsules, dashed without
    "capsnet": (BLUE, "o-"),
    "compact": (GREEN, "s-"),
    "compact_convnet": (PURPLE, "^--"),
    "baseline": (GREY, "D--"),
}
CURVES = {  # panel -> label of its axis
    "rotation": "rotation (degrees, anticlockwise)",
    "shear": "shear (px to the right per px up)",
    "scale": "scale",
    "translation": "distance from the centre (px)",
}
GROUPS = {  # panel -> label of its group of bars
    "pairs": "trained on pairs:\npair wrong",
    "pair": "trained on single digits:\npair wrong",
    "pair_digit": "trained on single digits:\ndigit missed",
}
NOTE = "Mean over seeds, with 95 % intervals"


def orientation(table: pd.DataFrame, path: Path) -> None:
    """Error against each transform, and under affNIST's transforms together."""
    title = "Test error on transformed digits, after training on upright ones"
    mosaic = [["rotation"] * 2 + ["affnist_like_2px"], ["shear", "scale", "translation"]]
    with chart(path, height=1500, title=title) as figure:
        places = figure.subplot_mosaic(mosaic)
        for panel, words in CURVES.items():
            curves(places[panel], table[table["panel"] == panel])
            places[panel].set_xlabel(words, **LABELS)
            places[panel].set_ylim(bottom=0)
        places["rotation"].set_xticks(range(-90, 91, 30))
        places["shear"].set_xticks((-0.6, -0.3, 0, 0.3, 0.6))
        all_of_them = {"affnist_like_2px": "affNIST's transforms,\nshifted by up to 2 px"}
        groups(places["affnist_like_2px"], table, all_of_them)
        finish(figure, places["rotation"], places["affnist_like_2px"], places["shear"])


def overlap(table: pd.DataFrame, path: Path) -> None:
    with chart(path, height=1100, title="Test error on overlapping digits") as figure:
        axes, tested = figure.subplots(), set(table["panel"])
        groups(axes, table, {panel: GROUPS[panel] for panel in GROUPS if panel in tested})
        finish(figure, axes)


def digits(table: pd.DataFrame, path: Path) -> None:
    title = "Test error against the number of training digits"
    with chart(path, height=1100, title=title) as figure:
        axes, sizes = figure.subplots(), sorted(table["place"].unique())
        curves(axes, table)
        errors = table["test_error"]
        log_scale(axes, errors.to_numpy())
        axes.set(xscale="log", ylim=(0.7 * errors.min(), 1.4 * errors.max()))
        axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("training digits", **LABELS)
        finish(figure, axes)


def curves(axes: Axes, table: pd.DataFrame) -> None:
    """A line with its band for each network."""
    for network, (color, form) in STYLES.items():
        rows = table[table["network"] == network].sort_values("place")
        x, style = rows["place"], {"color": color, "label": NETWORKS[network].title}
        if len(rows):
            axes.plot(x, rows["test_error"], form, **style)
            axes.fill_between(x, rows["low"], rows["high"], color=color, alpha=0.12, lw=0)
    axes.grid(visible=True)


def groups(axes: Axes, table: pd.DataFrame, words: dict[str, str]) -> None:
    """A group of bars for each panel in `words`, with a bar for each network."""
    panels, networks = list(words), [name for name in STYLES if name in set(table["network"])]
    width = 0.8 / len(STYLES)
    for number, network in enumerate(networks):
        rows = table[(table["network"] == network) & table["panel"].isin(panels)]
        apart = (number - (len(networks) - 1) / 2) * width
        x = [panels.index(panel) + apart for panel in rows["panel"]]
        errors = rows["test_error"]
        bars = [errors - rows["low"], rows["high"] - errors]  # NaN: none is drawn
        style = {"color": STYLES[network][0], "label": NETWORKS[network].title}
        axes.bar(x, errors, 0.9 * width, yerr=bars, ecolor=INK, capsize=4, **style)
    axes.set_xticks(range(len(panels)), list(words.values()), **LABELS)
    axes.set_xlim(-0.5, len(panels) - 0.5)
    axes.grid(visible=True, axis="y")


def finish(figure: Figure, *left: Axes) -> None:
    """The label of the axes at the left edge, and one legend, from the first of them."""
    for axes in left:
        axes.set_ylabel("test error (%)", **LABELS)
    handles = left[0].get_legend_handles_labels()
    style = {"ncols": len(STYLES), "fontsize": 9, "title": NOTE, "title_fontsize": 8}
    figure.legend(*handles, loc="outside lower center", **style)


FIGURES = {"orientation": orientation, "overlap": overlap, "digits": digits}
