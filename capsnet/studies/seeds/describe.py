"""Rows of runs and their differences as Markdown tables and sentences."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from capsnet.studies.results import markdown, number, picture, with_sd
from capsnet.studies.seeds.draw import draw
from capsnet.studies.seeds.measure import differences, row_table
from capsnet.studies.seeds.paper import PAPER


def comparison(runs: pd.DataFrame, drawn: Path, here: Path) -> Iterator[str]:
    """Verdict, differences, rows and figures of the records `runs`."""
    found = differences(runs)
    if len(found):
        yield from answer(found)
        yield from sentences(found)
        yield difference_markdown(found)
    yield from ("Rows, each with the networks that differ only in their seed:", rows_markdown(runs))
    for _, some in runs.groupby(["budget", "task", "family"], sort=False):
        yield from (picture(title, path, here) for title, path in draw(some, drawn))


def answer(found: pd.DataFrame) -> Iterator[str]:
    """Does routing matter? By the longest training of several seeds with and without agreement."""
    for one in found[found["agreement"] & (found["seeds"] > 0)].tail(1).itertuples():
        matters = "Yes" if one.significant else "No difference was found"
        yield (
            f"**{matters}.** One routing iteration means no agreement. After {one.held_fixed} the "
            f"error of the {one.name} minus that of the {one.baseline} is {one.points:+.2f} points "
            f"(95 % interval {one.low:+.2f} to {one.high:+.2f}, {compared(one)}; ratio of the "
            f"errors {one.ratio:.2f})."
        )
    yield (
        "Intervals are of one comparison. Significant means p < 0.05 after Holm's correction for "
        f"all {len(found)} differences on this page."
    )


def rows_markdown(runs: pd.DataFrame) -> str:
    return markdown(
        {
            "row": row.name,
            "task": row.task,
            "images shown": f"{row.examples:,}",
            "networks": str(row.networks),
            "test error %": with_sd(row.test_error, row.test_error_sd),
            "95 % interval": f"{row.low:.2f} to {row.high:.2f}",
            "validation error %": number(row.validation_error),
            "separation accuracy %": with_sd(row.separation, row.separation_sd),
            "GMAC": f"{row.multiply_adds / 1e9:.3g}",
            "images/s": f"{row.images_per_second:.0f}",
            "paper %": with_sd(row.paper, row.paper_sd, "g"),
        }
        for row in row_table(runs).itertuples()
    )


def difference_markdown(found: pd.DataFrame) -> str:
    return markdown(
        {
            "held fixed": one.held_fixed,
            "row": one.name,
            "baseline": one.baseline,
            "difference, points": f"{one.points:+.2f}",
            "95 % interval": f"{one.low:+.2f} to {one.high:+.2f}",
            "error ratio": f"{one.ratio:.2f}",
            "in the paper": number(one.paper_ratio),
            "compared": compared(one),
            "p, Holm": f"{one.p:.2g}",
            "verdict": verdict(one),
        }
        for one in found.itertuples()
    )


def sentences(found: pd.DataFrame) -> Iterator[str]:
    """Each difference in a sentence, grouped by what is held fixed."""
    for (held_fixed, baseline), group in found.groupby(["held_fixed", "baseline"], sort=False):
        yield f"Held fixed: {held_fixed}. Baseline: {baseline}."
        yield "\n".join(f"- {sentence(one)}" for one in group.itertuples())


def sentence(one) -> str:
    verb = "raises" if one.points > 0 else "lowers"
    paper = "" if pd.isna(one.paper_ratio) else f"; in the paper {one.paper_ratio:.2f}"
    return (
        f"{one.name} {verb} the error by {abs(one.points):.2f} points (ratio {one.ratio:.2f}"
        f"{paper}). 95 % interval {one.low:+.2f} to {one.high:+.2f}, {compared(one)}: "
        f"{verdict(one)}."
    )


def compared(one) -> str:
    if one.seeds:
        return f"{one.seeds} seeds, paired"
    return f"one network each on the same {one.examples:,} examples"


def verdict(one) -> str:
    if not one.significant:
        return "not significant"
    return "significant" if one.seeds else "significant for these two networks only"


def training_markdown(runs: pd.DataFrame) -> str:
    """The record of each training that has one."""
    fields = ("commit", "date", "processor", "precision", "python", "torch")
    return markdown(
        {
            "run": run.name,
            **{field: run.record.get(field) or "-" for field in fields},
            "images shown": f"{run.record['examples']:,}",
            "minutes": f"{run.record['seconds'] / 60:.1f}",
        }
        for run in runs["results"]
        if run.record
    )


def paper_markdown(runs: pd.DataFrame) -> str:
    """Table 1 of the paper and, for each budget, the row in each of its places."""
    budgets = list(row_table(runs).groupby("budget", sort=False))
    lines = []
    for place, paper in PAPER.items():
        network, iterations, reconstruction, task = place
        line = {
            "method": network,
            "routing": f"r = {iterations}" if iterations else "-",
            "reconstruction": {True: "yes", False: "no", None: "-"}[reconstruction],
            "task": task,
            "paper %": with_sd(*paper, "g"),
        }
        own = {f"here %, budget `{budget}`": in_place(place, rows) for budget, rows in budgets}
        lines.append(line | own)
    return markdown(lines)


def in_place(place: tuple, table: pd.DataFrame) -> str:
    """The row in a place of the paper's table, at the length that most rows of its task have."""
    table = table[table["in_paper"].map(PAPER.__contains__) & (table["task"] == place[-1])]
    length = table["examples"].mode().max()
    for row in table[table["examples"] == length].itertuples():
        if row.in_paper == place:
            error = with_sd(row.test_error, row.test_error_sd)
            return f"{error} (n = {row.networks}, {row.examples:,} images)"
    return "not run"
