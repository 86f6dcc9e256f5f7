"""Runs that differ in nothing but their seed are a row; rows are compared by numbers.

Rows of several seeds are compared by the differences between the networks of the same seed, which
saw the same digits in the same order: their mean and its t interval speak of other trainings. Of
one network each, the test examples that both saw are compared (McNemar 1947): that speaks of these
two networks alone. "Sure" means at 95 %, one comparison at a time.
"""

from itertools import groupby
from statistics import mean
from typing import NamedTuple

import numpy as np
import pandas as pd

from capsnet.config import Params, resolve
from capsnet.nn.registry import NETWORKS
from capsnet.report.tables import place_in_paper, published
from capsnet.studies.results import Results

ALIKE = 0.05  # share by which the computation of two trainings may differ and count as the same


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

    @property
    def multiply_adds(self) -> float:
        """Of a prediction for one image, without the decoder."""
        return float(self.runs[0].tables["training"]["multiply_adds"].iloc[-1])

    @property
    def separation(self) -> list[float]:
        """Percent of one digit's own pixels that its reconstruction draws brighter, by network."""
        tables = [run.tables.get("separation", pd.DataFrame({"measure": []})) for run in self.runs]
        found = [table[table["measure"] == "separation_accuracy"] for table in tables]
        return [float(of_all["value"].iloc[0]) for of_all in found if len(of_all)]

    @property
    def computation(self) -> float:
        """Multiply-adds of a training, but for a factor that is about the same for all networks."""
        return self.examples * self.multiply_adds


class Difference(NamedTuple):
    """How much higher the second row's error is than the first's, in points."""

    first: str
    second: str
    value: float
    low: float  # 95 %
    high: float
    of: str  # what varies: seeds or examples
    sure: bool
    trainings: bool  # whether it speaks of other trainings, too
    ratio: float  # of the errors, second to first
    published: float | None  # the same of the paper's

    @property
    def verdict(self) -> str:
        if not self.sure:
            return "this may be chance"
        return "sure" if self.trainings else "sure of these two networks, not of others"

    @property
    def beside_paper(self) -> str:
        return f"; in the paper {self.published:.2f} times" if self.published else ""

    def __str__(self) -> str:
        words = "more" if self.value > 0 else "fewer"
        return (
            f"{self.second}: {abs(self.value):.2f} points {words} errors than {self.first} "
            f"({self.low:+.2f} to {self.high:+.2f}; {self.of}: {self.verdict}), "
            f"{self.ratio:.2f} times as many{self.beside_paper}."
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
            shown(params, runs, measured),
            [measured[run] for run in runs],
            [resolve(params, run).seed for run in runs],
            place_in_paper(params, runs[0]),
            published(params, runs[0]),
        )
        for runs in groups.values()
    ]


def shown(params: Params, runs: list[str], measured: dict[str, Results]) -> int:
    """Images in training: as planned, or where it stopped at an error, the mean of these runs."""
    if params.runs[runs[0]].stop_at_error is None:
        return resolve(params, runs[0]).task.training_examples
    return round(mean(measured[run].tables["training"]["examples"].iloc[-1] for run in runs))


def describe(params: Params, run: str) -> str:
    """A run in words: "CapsNet, r = 3, no reconstruction"."""
    config, peak = resolve(params, run), params.runs[run].peak
    network = NETWORKS[config.network]
    words = [network.title]
    if network.routes:
        words.append(f"r = {config.routing.iterations}")
    if network.reconstructs:
        weight = config.loss.reconstruction_weight
        if weight == 0:
            words.append("no reconstruction")
        elif weight != params.loss.reconstruction_weight:
            words.append(f"reconstruction {weight:g}")
    if peak is not None:
        words.append(f"peak {peak:g}")
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
    trainings = len(shared) > 1
    if trainings:
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
    if varies := np.ptp(np.subtract(other, one)) > 0:
        low, high = (float(end) for end in ttest_rel(other, one).confidence_interval())
    # Differences that are all the same by chance say nothing of how far others would be off.
    sure = bool(varies and not low <= 0 <= high) if pvalue is None else pvalue < 0.05
    ratio = float(np.mean(other) / np.mean(one)) if np.mean(one) > 0 else float("nan")
    paper = [float(row.paper.split()[0]) if row.paper else None for row in (first, second)]
    published = paper[1] / paper[0] if all(paper) else None
    return Difference(
        first.name, second.name, value, low, high, of, sure, trainings, ratio, published
    )


def differences(rows: list[Row]) -> list[tuple[str, Difference]]:
    """Every row beside the first of its task and length, with what the two have alike in words.

    A row stands also beside the first of another length that was shown more images for as many
    multiply-adds, by a network that costs less for each.
    """
    ordered = sorted(rows, key=_kind)
    leaders = [next(alike) for _, alike in groupby(ordered, key=_kind)]
    of_one_length, of_two = [], []
    for row in ordered:
        for leader in leaders:
            images = f"{row.examples:,} images"
            if _kind(row) == _kind(leader) and row is not leader:
                of_one_length.append((f"{images} of {row.task}", difference(leader, row)))
            elif _cheaper(leader, row):
                words = f"computation on {row.task}, {images} beside {leader.examples:,}"
                of_two.append((words, difference(leader, row)))
    return [(words, one) for words, one in of_one_length + of_two if one is not None]


def _kind(row: Row) -> tuple[str, int]:
    return row.task, row.examples


def _cheaper(one: Row, other: Row) -> bool:
    """Whether the one was shown more images than the other for the same computation."""
    more = one.task == other.task and one.examples > other.examples
    return more and abs(one.computation / other.computation - 1) < ALIKE
