"""The report of a study: rows of several seeds, what differs between them, and the paper's Table 1.

Tables in, Markdown and figures out. Rows that were not trained are named; nothing is extrapolated.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from capsnet.config import Params, resolve
from capsnet.report.comparisons import differences_table, rows_table
from capsnet.report.draw import lines
from capsnet.report.rows import Row, differences, interval_of, rows_of
from capsnet.report.tables import PAPER, markdown
from capsnet.studies.results import FEW, Results

READ = """CapsNet, r = 3 routes by agreement, r = 1 not: every coupling is 1/10. The ConvNet has the
same convolutions, decoder and loss, without squash and routing; the baseline is the paper's CNN.

No network was chosen by a test error. Learning rates (peak) were chosen on validation digits for
each network, but r = 1 was given that of r = 3; two others, tried on validation digits when its
rows were done, were no better: [recipe](../../docs/recipe.md). All of one task and budget are
tested on the same examples. A row is trainings that differ in their seed (and perhaps in the
machine, which sums in another order), with mean and standard deviation over them and the 95 % t
interval of the mean: it speaks of other seeds on these test examples, not of other examples. Where
there is one network the interval is Wilson's, which knows nothing of other trainings and, like
McNemar's test below, takes pairs as independent, though two may share a digit.

A row is compared with the first of its length, and with the first of another length if that was
shown more images for as many multiply-adds, within 5 %. Networks of the same seed saw the same
digits in the same order, as far as they saw as many, so the differences are paired, over the seeds
that both rows have; where that is one, over the test examples (McNemar). "Sure" is at 95 % for one
comparison, not for all of them together. GMAC: billions of multiply-adds for one image, without the
decoder. Told apart: of the pixels that one digit alone has inked, those on which its own
reconstruction is the brighter one. images/s is of several machines that did other
work too: it compares no networks."""
AFFNIST = """The paper's two, trained until they erred on 0.77 % and 0.78 % of shifted digits, erred
on 21 % (CapsNet) and 34 % (CNN) of affNIST."""
TRAININGS = """Each training is a record. `commit` is the code that ran it; later code does not make
it stale. A field that was not recorded is "-"."""
COIN = 50  # percent of the pixels it tells apart
PAPER_PAIRS = 60_000_000  # of its training set (section 6); how many were shown is not published
TABLE_1 = """Of several lengths of a budget the one of which it has most rows of the task, for
its rows to compare. At any length but the paper's these are not its conditions."""


def study(
    series: list[tuple[Params, dict[str, Results]]], drawn: Path, here: Path
) -> Iterator[str]:
    """The parts of the report, from the runs of each series that were measured."""
    each: dict[str, list[Row]] = {}  # by budget: two series may have one
    for params, measured in series:
        each.setdefault(params.budget, []).extend(rows_of(params, measured))
    rows = [row for some in each.values() for row in some]
    yield "# Does routing matter? The study"
    yield READ
    for params, measured in series:
        missing = [name for name in params.runs if name not in measured]
        done = f"Budget `{params.budget}`: {len(measured)} of {len(params.runs)} networks are"
        yield f"{done} trained and tested." + (
            f" Not yet: {', '.join(missing)}." if missing else ""
        )
    if rows:
        found = differences(rows)
        if found:
            yield "## The answer so far"
            yield "\n".join(f"- With the same {alike}: {one}" for alike, one in found)
            yield longest(series)
        yield "## Rows"
        yield rows_table(rows)
        if found:
            yield "## Differences"
            yield differences_table(found)
        yield "## Figures"
        yield (
            "Bars: against length as in the table; by overlap from the lowest to the highest end "
            "of the 95 % intervals of the row's networks, of the test examples in that range. A "
            f"coin tells {COIN} % of the pixels apart."
        )
        names = list(dict.fromkeys(row.name for row in rows))
        for budget, some in each.items():
            for name, (title, table, x_label, y_label) in figures_of(some).items():
                path, least = drawn / f"{name}_{budget}.png", COIN if name == "pixels" else 0
                words = {"title": title, "x_label": x_label, "y_label": y_label}
                lines(table, path, **words, styled=names, least=least)
                yield f"![{title}]({Path(os.path.relpath(path, here)).as_posix()})"
    if any(run.record for row in rows for run in row.runs):
        yield "## Trainings"
        yield TRAININGS
        yield trainings_table(rows)
    yield "## Table 1 of the paper"
    yield TABLE_1
    yield table_1(each)
    yield "## affNIST"
    yield from affnist(rows)


def trainings_table(rows: list[Row]) -> str:
    """The record of each training."""
    fields = ("commit", "date", "processor", "precision", "python", "torch")
    return markdown(
        [
            {"run": run.name}
            | {field: run.record.get(field) or "-" for field in fields}
            | {
                "images shown": f"{run.record['examples']:,}",
                "minutes": f"{run.record['seconds'] / 60:.1f}",
            }
            for row in rows
            for run in row.runs
            if run.record
        ]
    )


def longest(series: list[tuple[Params, dict[str, Results]]]) -> str:
    """How far the compared networks are from the paper's MultiMNIST: a network alone is not."""
    here = [
        resolve(params, name).task.training_examples
        for params, measured in series
        for name in measured
        if params.runs[name].task == "multimnist" and len(measured) > 1
    ]
    if not here or max(here) >= PAPER_PAIRS:
        return ""
    return (
        f"The longest of the compared trainings on MultiMNIST shows {max(here):,} pairs, the "
        f"paper's training set has {PAPER_PAIRS:,}: the differences are those of short trainings."
    )


def figures_of(rows: list[Row]) -> dict[str, tuple[str, pd.DataFrame, str, str]]:
    """Name -> title, table (name, place, value, low, high), and the words at the axes: of the
    first row's task, and but for the first figure of its length. Of a single row none: there is
    nothing to compare.
    """
    if len(rows) < 2:
        return {}
    share = "shared ink, of the smaller digit's"
    rows = [row for row in rows if row.task == rows[0].task]
    examples = rows[0].examples
    alike = [row for row in rows if row.examples == examples]
    length = pd.DataFrame(
        {
            "name": row.name,
            "place": row.examples,
            "value": mean(row.errors),
            **dict(zip(("low", "high"), interval_of(row)[:2], strict=True)),
        }
        for row in rows
    )
    overlap = [by_overlap(row, "errors", ("group", "overlap"), "error") for row in alike]
    pixels = [
        by_overlap(row, "separation", ("measure", "separation_accuracy"), "value") for row in alike
    ]
    found = {
        "length": (
            "Test error against length of training",
            length,
            "images shown",
            "test error (%)",
        )
    }
    title = f"Test error by overlap, after {examples:,} training images"
    found["overlap"] = (title, pd.concat(overlap), share, "test error (%)")
    title = f"Pixels told apart by overlap, after {examples:,} training images"
    found["pixels"] = (title, pd.concat(pixels), share, "pixels told apart (%)")
    return {name: figure for name, figure in found.items() if len(figure[1])}


def by_overlap(row: Row, table: str, group: tuple[str, str], value: str) -> pd.DataFrame:
    """Mean over the row's networks for each range of overlap with at least FEW examples, from the
    lowest to the highest end of their intervals.
    """
    column, wanted = group
    tables = [run.tables[table] for run in row.runs]
    ranges = pd.concat(one[(one[column] == wanted) & (one["name"] != "all")] for one in tables)
    ranges = ranges[ranges["examples"] >= FEW].groupby("name", sort=False)
    low, high = ("low", "high") if value == "value" else (f"{value}_low", f"{value}_high")
    found = ranges.agg(**{"value": (value, "mean"), "low": (low, "min"), "high": (high, "max")})
    return found.reset_index(names="place").assign(name=row.name)


def affnist(rows: list[Row]) -> Iterator[str]:
    """Networks of digits anywhere on affNIST's canvas, tested on digits transformed as its are."""
    table = []
    for row in rows:
        for run in row.runs:
            if "robustness" in run.tables:
                errors = run.tables["robustness"].set_index("transform")["error"]
                named = {"affnist_like": "transformed alike %", "affnist": "affNIST %"}
                found = {
                    to: f"{errors[of]:.2f}" if of in errors else "-" for of, to in named.items()
                }
                error = f"{run.headline['error']:.2f}"
                table.append({"network": row.name, "test error, only shifted %": error} | found)
    if table:
        yield markdown(table)
    else:
        yield "Not run."
    yield AFFNIST


def table_1(each: dict[str, list[Row]]) -> str:
    """Every row of the paper's table, with what each budget has in its place, or "not run"."""
    table = []
    for place, paper in PAPER.items():
        network, iterations, reconstruction, task = place
        yes = {True: "yes", False: "no", None: "-"}[reconstruction]
        line = {
            "method": network,
            "routing": f"r = {iterations}" if iterations else "-",
            "reconstruction": yes,
            "task": task,
            "paper %": paper,
        }
        for budget, rows in each.items():
            line[f"here %, budget `{budget}`"] = in_place(place, rows)
        table.append(line)
    return markdown(table)


def in_place(place: tuple, rows: list[Row]) -> str:
    """What these rows have in that place of the paper's table."""
    lengths = [row.examples for row in rows if row.task == place[-1] and row.place in PAPER]
    length = max(lengths, key=lambda one: (lengths.count(one), one), default=0)
    for row in rows:
        if row.place == place and row.examples == length:
            spread = f" ± {stdev(row.errors):.2f}" if len(row.runs) > 1 else ""
            return f"{mean(row.errors):.2f}{spread} (n = {len(row.runs)}, {row.examples:,} images)"
    return "not run"
