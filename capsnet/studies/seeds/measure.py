"""Compare trainings. Runs that differ only in their seed form a row.

Rows that share several seeds are compared by the differences between networks of the same seed,
which saw the same images in the same order: the t interval holds for other trainings. Other rows
are compared by one network each on the same test examples (McNemar 1947), which holds for these
two networks only. Every interval is a 95 % interval of one comparison. A difference is significant
at 5 % after the correction of Holm (1979) over all differences of a table.
"""

from collections.abc import Mapping
from itertools import product

import numpy as np
import pandas as pd

from capsnet.config import RunConfig
from capsnet.nn.registry import NETWORKS
from capsnet.studies.results import FEW, Results
from capsnet.studies.seeds.paper import PAPER_WEIGHT, place_in_paper, published

TOLERANCE = 0.05  # relative difference of two trainings' multiply-adds that count as equal


def records(configs: Mapping[str, RunConfig], measured: Mapping[str, Results]) -> pd.DataFrame:
    """One record for each run that was measured: its row, its numbers, the paper's, its results."""
    found, peaks = [], {}
    for run, config in configs.items():
        family = "compact" if NETWORKS[config.network].compact else "paper"
        first_peak = peaks.setdefault((config.budget, family), config.learning_rate.peak)
        if run in measured:
            results, task = measured[run], config.task
            last, separation = results.tables["training"].iloc[-1], results.tables["separation"]
            accuracy = separation.loc[separation["measure"] == "separation_accuracy", "value"]
            paper, paper_sd = published(config)
            stopped = config.stop_at_error is not None
            numbers = {
                "run": run,
                "row": config.model_dump_json(exclude={"name", "seed"}),
                "seed": config.seed,
                "name": row_name(config, usual_peak=first_peak),
                "budget": config.budget,
                "family": family,  # of networks of about the same size
                "task": task.name,
                "in_paper": place_in_paper(config),
                "examples": last["examples"] if stopped else task.training_examples,
                "multiply_adds": last["multiply_adds"],  # for one image, without the decoder
                "separation": next(iter(accuracy), np.nan),  # the first is of all overlaps
                "paper": paper,
                "paper_sd": paper_sd,
                "results": results,
            }
            found.append(numbers | results.headline)
    table = pd.DataFrame(found).astype({"validation_error": float})  # may be None
    return table.drop_duplicates(["row", "seed"])


def row_name(config: RunConfig, *, usual_peak: float) -> str:
    """Network and settings, for example "CapsNet, r = 3, no reconstruction"."""
    network, weight = NETWORKS[config.network], config.loss.reconstruction_weight
    words = [network.title]
    if network.routes:
        words.append(f"r = {config.routing.iterations}")
    if network.reconstructs and weight != PAPER_WEIGHT:
        words.append(f"reconstruction {weight:g}" if weight > 0 else "no reconstruction")
    if config.learning_rate.peak != usual_peak:
        words.append(f"peak {config.learning_rate.peak:g}")
    if config.data.augment:
        words.append("augmented")
    return ", ".join(words)


def row_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation `sd` and interval over the networks of each row, in the order of
    their first runs. The interval of a single network is Wilson's.
    """
    from scipy.stats import t

    numbers = runs.groupby("row", sort=False)
    alike = ["name", "budget", "family", "task", "in_paper", "multiply_adds", "paper", "paper_sd"]
    table = numbers[alike].first()
    table["networks"] = numbers.size()
    table["examples"] = numbers["examples"].mean().round().astype(int)
    for name in ("test_error", "validation_error", "separation", "images_per_second"):
        table[name], table[f"{name}_sd"] = numbers[name].mean(), numbers[name].std()
    half = t.ppf(0.975, table["networks"] - 1) * table["test_error_sd"] / np.sqrt(table["networks"])
    one = table["networks"] == 1
    table["low"] = (table["test_error"] - half).mask(one, numbers["test_error_low"].first())
    table["high"] = (table["test_error"] + half).mask(one, numbers["test_error_high"].first())
    return table


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Compare each row with a baseline, the first of its task and number of images, and with the
    first that was shown more images for the same number of multiply-adds. A row is left out where
    the two share neither several seeds nor the test examples. `agreement`: as many images, with one
    routing iteration against several.
    """
    table = row_table(runs).reset_index().sort_values(["task", "examples"], kind="stable")
    leaders = table.drop_duplicates(["task", "examples"])
    same_images, same_cost = [], []
    for one, base in product(table.itertuples(), leaders.itertuples()):
        cost, base_cost = (each.examples * each.multiply_adds for each in (one, base))
        if one.task != base.task or one.row == base.row:
            continue
        if one.examples == base.examples:
            same_images.append((f"{one.examples:,} images of {one.task}", one, base))
        elif one.examples < base.examples and abs(base_cost / cost - 1) < TOLERANCE:
            images = f"{one.examples:,} against {base.examples:,} images"
            same_cost.append((f"multiply-adds on {one.task}, {images}", one, base))
    found = []
    for held_fixed, one, base in same_images + same_cost:
        numbers = difference(runs[runs["row"] == one.row], runs[runs["row"] == base.row])
        if numbers is not None:
            names = {"held_fixed": held_fixed, "name": one.name, "baseline": base.name}
            once, several = (row.in_paper[1] for row in (one, base))  # routing iterations
            same = one.examples == base.examples and one.in_paper[::2] == base.in_paper[::2]
            names["agreement"] = same and once == 1 and several is not None and several > 1
            found.append(names | numbers | {"paper_ratio": one.paper / base.paper})
    return corrected(pd.DataFrame(found))


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Columns p and significant of differences, corrected for all of the table."""
    if table.empty:
        return table
    p = holm(table["p"])
    return table.assign(p=p, significant=p < 0.05)


def holm(p: pd.Series) -> pd.Series:
    """Adjust p-values for all of them together (Holm 1979)."""
    ordered = p.sort_values()
    return (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1)


def difference(runs: pd.DataFrame, baseline: pd.DataFrame) -> dict[str, object] | None:
    """Error of one row minus that of its baseline in points, with interval and ratio. `seeds` that
    were paired is 0 where one network of each row is compared on the test examples.
    """
    from scipy.stats import binomtest, ttest_rel

    pairs = runs.merge(baseline, on="seed", suffixes=("", "_base"))
    seeds = len(pairs) if len(pairs) > 1 else 0
    if seeds:
        ours, base = pairs["test_error"].to_numpy(), pairs["test_error_base"].to_numpy()
    else:
        if pairs.empty:
            pairs = runs.merge(baseline, how="cross", suffixes=("", "_base"))
        both = pairs[["results", "results_base"]].iloc[0]
        ours, base = (100 * (1 - one.tables["examples"]["right"].to_numpy()) for one in both)
        if len(ours) != len(base):
            return None
    apart, points = ours - base, float(ours.mean() - base.mean())
    low = high = points
    p = 1.0  # equal differences say nothing about other trainings
    if np.ptp(apart) > 0:
        test = ttest_rel(ours, base)
        (low, high), p = test.confidence_interval(), test.pvalue
    more, less = int((apart > 0).sum()), int((apart < 0).sum())
    if not seeds and more + less:
        p = binomtest(more, more + less).pvalue
    ratio = ours.mean() / base.mean() if base.mean() > 0 else np.nan
    numbers = {"points": points, "low": low, "high": high, "ratio": ratio, "seeds": seeds}
    return numbers | {"examples": len(ours), "p": p, "significant": p < 0.05}


def by_overlap(runs: pd.DataFrame, table: str, measure: str) -> pd.DataFrame:
    """Mean over a row's networks for each range of overlap with at least FEW examples, and the
    lowest and highest end of their intervals: name, place, value, low, high, examples.
    """
    columns = {"group": "measure", "error": "value", "error_low": "low", "error_high": "high"}
    found = pd.concat(
        run.results.tables[table].rename(columns=columns).assign(row=run.name)
        for run in runs.itertuples()
    )
    found = found[(found["measure"] == measure) & (found["name"] != "all")]
    ranges = found[found["examples"] >= FEW].groupby(["row", "name"], sort=False)
    ends = ranges.agg(
        value=("value", "mean"),
        low=("low", "min"),
        high=("high", "max"),
        examples=("examples", "max"),
    )
    return ends.reset_index(names=["name", "place"])
