"""Does routing matter? Rows of runs that differ in nothing but their seed, compared.

Rows of several seeds are compared by the differences between the networks of the same seed, which
saw the same digits in the same order: their mean and its t interval speak of other trainings. Of
one network each, the test examples that both saw are compared (McNemar 1947): that speaks of these
two networks alone. "Sure" means at 95 %, one comparison at a time.
"""

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import pandas as pd

from capsnet.figures.comparison import comparison
from capsnet.params import Params
from capsnet.report.tables import Results, markdown, place_in_paper, published
from capsnet.runs import params_of, task_of

NAMES = {"capsnet": "CapsNet", "convnet": "ConvNet", "baseline": "baseline"}
HOW = """No run here has another beside it to compare with. To train one without agreement:

```bash
dvc exp run -S '+runs.once={task: multimnist, network: capsnet, iterations: 1}'
```

With one iteration the couplings stay even. `--queue` lines several up."""


class Row(NamedTuple):
    """Runs that differ in nothing but their seed."""

    name: str  # what they are, in words
    task: str
    examples: int  # shown in training
    runs: list[Results]
    seeds: list[int]
    place: tuple  # in the paper's Table 1, if there
    paper: str | None

    @property
    def errors(self) -> list[float]:
        return [run.headline["error"] for run in self.runs]


class Difference(NamedTuple):
    """How much higher the second row's error is than the first's, in points."""

    first: str
    second: str
    value: float
    low: float  # 95 %
    high: float
    of: str  # what varies: seeds or examples
    sure: bool

    def __str__(self) -> str:
        verdict = "sure" if self.sure else "this may be chance"
        words = "more" if self.value > 0 else "less"
        return (
            f"{self.second}: {abs(self.value):.2f} points {words} errors than {self.first} "
            f"({self.low:+.2f} to {self.high:+.2f}; {self.of}: {verdict})."
        )


def rows_of(params: Params, measured: dict[str, Results]) -> list[Row]:
    """The rows in the order of their first runs; runs that were not measured are left out."""
    groups: dict[tuple, list[str]] = {}
    for run, settings in params.runs.items():
        if run in measured:
            alike = settings.model_dump(exclude={"seed"})
            groups.setdefault(tuple(alike.items()), []).append(run)
    return [
        Row(
            describe(params, runs[0]),
            params.runs[runs[0]].task,
            task_of(params, runs[0]).training_examples,
            [measured[run] for run in runs],
            [params_of(params, run).seed for run in runs],
            place_in_paper(params, runs[0]),
            published(params, runs[0]),
        )
        for runs in groups.values()
    ]


def describe(params: Params, run: str) -> str:
    """A run in words: "CapsNet, r = 3, no reconstruction"."""
    settings, own = params.runs[run], params_of(params, run)
    words = [NAMES[settings.network]]
    if settings.network == "capsnet":
        words.append(f"r = {own.routing.iterations}")
    if settings.network != "baseline":
        weight = own.loss.reconstruction_weight
        if weight == 0:
            words.append("no reconstruction")
        elif weight != params.loss.reconstruction_weight:
            words.append(f"reconstruction {weight:g}")
    if settings.peak is not None:
        words.append(f"peak {settings.peak:g}")
    return ", ".join(words)


def interval_of(row: Row) -> tuple[float, float, str]:
    """95 % of the row's error: over trainings (t) where there are several, else over examples."""
    if len(row.runs) == 1:
        headline = row.runs[0].headline
        return headline["error_low"], headline["error_high"], "examples"
    from scipy.stats import ttest_1samp

    found = ttest_1samp(row.errors, 0).confidence_interval()
    return float(found.low), float(found.high), f"{len(row.runs)} seeds"


def difference(first: Row, second: Row) -> Difference | None:
    """The second row beside the first; None if they share neither seeds nor test examples."""
    from scipy.stats import binomtest, ttest_rel

    errors = [dict(zip(row.seeds, row.errors, strict=True)) for row in (first, second)]
    shared = sorted(errors[0].keys() & errors[1].keys())
    if len(shared) > 1:
        one, other = ([of_row[seed] for seed in shared] for of_row in errors)
        of, pvalue = f"{len(shared)} seeds, paired", None
    else:
        places = [row.seeds.index(shared[0]) if shared else 0 for row in (first, second)]
        one, other = (
            100 * (1 - row.runs[place].tables["examples"]["right"])
            for row, place in zip((first, second), places, strict=True)
        )
        if len(one) != len(other):
            return None
        more, less = int((other > one).sum()), int((other < one).sum())
        pvalue = binomtest(more, more + less).pvalue if more + less else 1.0
        of = f"one network each, the same {len(one):,} examples"
    value = float(np.mean(other) - np.mean(one))
    low = high = value
    if np.ptp(np.subtract(other, one)) > 0:
        low, high = (float(end) for end in ttest_rel(other, one).confidence_interval())
    sure = not low <= 0 <= high if pvalue is None else pvalue < 0.05
    return Difference(first.name, second.name, value, low, high, of, sure)


def differences(rows: list[Row]) -> list[tuple[int, Difference]]:
    """Every row beside the first of the same task and length, with that length."""
    found = []
    for (_, examples), alike in groupby(sorted(rows, key=_kind), key=_kind):
        first, *others = alike
        beside = (difference(first, other) for other in others)
        found += [(examples, one) for one in beside if one is not None]
    return found


def _kind(row: Row) -> tuple[str, int]:
    return row.task, row.examples


def rows_table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        low, high, of = interval_of(row)
        last = row.runs[0].tables["training"].iloc[-1]
        validation = [run.headline["validation_error"] for run in row.runs]
        spread = f" ± {stdev(row.errors):.2f}" if len(row.runs) > 1 else ""
        speed = mean(run.headline["images_per_second"] for run in row.runs)
        lines.append(
            {
                "row": row.name,
                "task": row.task,
                "images shown": f"{row.examples:,}",
                "networks": str(len(row.runs)),
                "test error %": f"**{mean(row.errors):.2f}**{spread}",
                "95 % interval": f"{low:.2f} to {high:.2f} ({of})",
                "validation error %": "-" if None in validation else f"{mean(validation):.2f}",
                "GMAC": f"{last['multiply_adds'] / 1e9:.2f}",
                "images/s": f"{speed:.0f}",
                "paper %": row.paper or "-",
            }
        )
    return markdown(lines)


def differences_table(found: list[tuple[int, Difference]]) -> str:
    return markdown(
        [
            {
                "images shown": f"{examples:,}",
                "row": one.second,
                "beside": one.first,
                "difference, points": f"**{one.value:+.2f}**",
                "95 % interval": f"{one.low:+.2f} to {one.high:+.2f}",
                "compared": one.of,
                "sure": "yes" if one.sure else "no",
            }
            for examples, one in found
        ]
    )


def controls(
    params: Params, measured: dict[str, Results], drawn: Path, here: Path
) -> Iterator[str]:
    """The section: rows, figures and sentences for each task with several rows, or how to."""
    yield "## Does routing matter?"
    rows = rows_of(params, measured)
    compared = False
    for task in dict.fromkeys(row.task for row in rows):
        of_task = [row for row in rows if row.task == task]
        if len(of_task) < 2:
            continue
        compared = True
        yield rows_table(of_task)
        path = drawn / f"controls_{task}.png"
        draw(of_task, path, title=f"{task}: test error of each row, with 95 % interval")
        yield f"![{task}: rows side by side]({Path(os.path.relpath(path, here)).as_posix()})"
        found = differences(of_task)
        if found:
            yield "\n".join(f"- {one}" for _, one in found)
    if not compared:
        yield HOW


def draw(rows: list[Row], path: Path, *, title: str) -> None:
    lengths = {row.examples for row in rows}
    table = pd.DataFrame(
        {
            "name": row.name + (f", {row.examples:,} shown" if len(lengths) > 1 else ""),
            "error": mean(row.errors),
            **dict(zip(("error_low", "error_high"), interval_of(row)[:2], strict=True)),
            "paper": float(row.paper.split()[0]) if row.paper else float("nan"),
        }
        for row in rows
    )
    comparison(table, path, title=title)
