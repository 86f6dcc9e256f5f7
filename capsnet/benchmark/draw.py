"""Time of routing and speed of training by size."""

from pathlib import Path

import pandas as pd

from capsnet.plots.canvas import BLUE, GREEN, chart, log_scale


def growth(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Rows (growing, contestant, size, batch_size, seconds) as four panels: one of each `growing`,
    in it a line of each `contestant`. Time of routing, but images/s in the panel "training"."""
    styles = [(BLUE, "o-"), (GREEN, "s--")]
    with chart(path, height=1240, title=title) as figure:
        panels = zip(figure.subplots(2, 2).flat, table.groupby("growing", sort=False), strict=True)
        for axes, (growing, rows) in panels:
            speed = growing == "training"
            value = rows["batch_size"] / rows["seconds"] if speed else 1000 * rows["seconds"]
            rows = rows.assign(value=value)
            lines = rows.groupby("contestant", sort=False)
            for (color, form), (name, line) in zip(styles, lines, strict=False):  # at most two
                axes.plot(line["size"], line["value"], form, color=color, label=name)
            sizes = rows["size"].unique()
            axes.set_xscale("linear" if growing == "iterations" else "log")
            axes.set_xticks(sizes, sizes)
            axes.set_xticks([], minor=True)
            if speed or growing == "iterations":
                axes.set_ylim(0, 1.1 * value.max())
            else:
                log_scale(axes, value.to_numpy())
            axes.set_title(fastest_sizes(rows) if speed else slowdown(growing, rows))
            axes.set_xlabel("images in a batch" if growing in ("images", "training") else growing)
            axes.set_ylabel("training speed (images/s)" if speed else "time of a batch (ms)")
            axes.grid(visible=True)
            axes.legend()


def slowdown(growing: str, rows: pd.DataFrame) -> str:
    """Of the first contestant, from its first size to its last: how many times the time."""
    line = rows[rows["contestant"] == rows["contestant"].iloc[0]]
    sizes, seconds = (line[name].iloc[-1] / line[name].iloc[0] for name in ("size", "seconds"))
    return f"{sizes:.3g}x the {growing}: {line['contestant'].iloc[0]} takes {seconds:.2g}x the time"


def fastest_sizes(rows: pd.DataFrame) -> str:
    best = rows.loc[rows.groupby("contestant", sort=False)["value"].idxmax()]
    sizes = [f"{row.size} ({row.contestant})" for row in best[["size", "contestant"]].itertuples()]
    return "Training: fastest at " + " and ".join(sizes)
