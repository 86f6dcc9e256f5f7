"""Does agreement matter? Runs that differ in how often they route, side by side, where there are
some.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from capsnet.figures.comparison import comparison
from capsnet.params import Params
from capsnet.report.tables import Results, published, routing_of
from capsnet.runs import params_of

INTERVAL = ("error", "error_low", "error_high")
HOW = """No run here switches agreement off. To train one beside the others, and only it:

```bash
dvc exp run -S '+runs.once={task: multimnist, network: capsnet, iterations: 1}'
```

With one iteration the couplings stay even: there is no agreement. `--queue` lines several up."""


def controls(
    params: Params, measured: dict[str, Results], drawn: Path, here: Path
) -> Iterator[str]:
    """The section: a figure and a sentence for each task with several ways to route, or how to."""
    yield "## Does agreement matter?"
    compared = False
    for task in dict.fromkeys(run.task for run in params.runs.values()):
        table = compare(params, measured, task)
        if table["name"].nunique() < 2:
            continue
        compared = True
        path = drawn / f"controls_{task}.png"
        sentence = verdict(table)
        comparison(table, path, title=f"{task}: {sentence[0].lower()}{sentence[1:-1]}")
        link = Path(os.path.relpath(path, here)).as_posix()
        yield f"**{task}.** {sentence}\n\n![{task}: ways to route]({link})"
    if not compared:
        yield HOW


def compare(params: Params, measured: dict[str, Results], task: str) -> pd.DataFrame:
    """A row for each CapsNet of the task that has reconstruction or not as the first one."""
    rows = []
    for name, settings in params.runs.items():
        if settings.task != task or settings.network != "capsnet":
            continue
        found, paper = measured[name].headline, published(params, name)
        rows.append(
            {
                "name": routing_of(params, name),
                "iterations": params_of(params, name).routing.iterations,
                "reconstruction": params_of(params, name).loss.reconstruction_weight > 0,
                **{key: found[key] for key in INTERVAL},
                "paper": float(paper.split()[0]) if paper else math.nan,
            }
        )
    table = pd.DataFrame(rows, columns=["name", "iterations", "reconstruction", *INTERVAL, "paper"])
    if len(table):  # another loss would be another comparison
        table = table[table["reconstruction"] == table["reconstruction"].iloc[0]]
    return table.reset_index(drop=True)


def verdict(table: pd.DataFrame) -> str:
    """What the best way with agreement gains on the best without it, and whether that is sure."""
    agrees = table["iterations"] > 1
    with_it, without = table[agrees], table[~agrees]
    if with_it.empty or without.empty:
        best = table.loc[table["error"].idxmin()]
        return f"The lowest error, {best['error']:.2f} %, is that of {best['name']}."
    first, second = (rows.loc[rows["error"].idxmin()] for rows in (with_it, without))
    apart = first["error_high"] < second["error_low"] or second["error_high"] < first["error_low"]
    sure = "the intervals are apart" if apart else "the intervals overlap, so this may be chance"
    less = "less" if first["error"] < second["error"] else "more"
    return (
        f"With {first['name']} the error is {abs(first['error'] - second['error']):.2f} points "
        f"{less} than with one iteration, so even couplings ({sure})."
    )
