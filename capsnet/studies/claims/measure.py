"""Three claims for capsule networks: orientation, overlap and few training digits.

A point is the error of one network in one test: run, claim, panel (the test), place (a number on
the axis of a curve, else 0), network, seed, images (shown in training), error in percent. Intervals
are 95 % t intervals over seeds.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from scipy.stats import t

from capsnet.config import RunConfig
from capsnet.studies.results import Results
from capsnet.studies.seeds.measure import corrected, difference, records, row_table

CONTROLS = {"capsnet": "baseline", "compact": "compact_convnet"}  # networks without capsules
TRANSFORMS = "transforms/robustness"  # a table in the folder of a run
PANELS = {
    "orientation": ("clean", "rotation", "shear", "scale", "translation", "affnist_like_2px"),
    "overlap": ("pairs", "pair", "pair_digit"),  # trained on pairs, or on single digits
    "digits": ("digits",),
}
COMPARED = ("rotation", "pairs", "pair", "digits")
COLUMNS = ["run", "claim", "panel", "place", "network", "seed", "images", "test_error"]
FEW = 1000  # digits; a larger training set is no small one
STUDY_ROWS = (  # networks trained on pairs
    ("capsnet", 3, True, "multimnist"),
    ("compact", 3, True, "multimnist"),
    ("compact_convnet", None, None, "multimnist"),
    ("baseline", None, None, "multimnist"),
)


def points(
    configs: Mapping[str, RunConfig], measured: Mapping[str, Results], claims: Mapping[str, str]
) -> pd.DataFrame:
    """The points of the finished runs in `claims`, run -> claim, and of STUDY_ROWS. A run that did
    not reach its `stop_at_error` has none.
    """
    found = []
    runs = records(configs, measured) if measured else pd.DataFrame(columns=["run", "in_paper"])
    claims = dict.fromkeys(rows_of_pairs(runs[~runs["run"].isin(claims)]), "overlap") | claims
    for run in runs[runs["run"].isin(claims)].itertuples():
        claim, config = claims[run.run], configs[run.run]
        if config.stop_at_error is not None and run.validation_error > config.stop_at_error:
            continue
        same = {"run": run.run, "claim": claim, "network": config.network, "seed": config.seed}
        found += [
            {**same, "panel": panel, "place": place, "images": run.examples, "test_error": error}
            for panel, place, error in tests(claim, config, run)
            if panel in PANELS[claim]
        ]
    return pd.DataFrame(found, columns=COLUMNS)


def tests(claim: str, config: RunConfig, run) -> Iterator[tuple[str, float, float]]:
    """Panel, place and error of each test of one record."""
    if claim == "digits":
        yield "digits", config.data.training_digits, run.test_error
    elif config.task.num_digits > 1:
        yield "pairs", 0, run.test_error
    else:
        yield "clean", 0, run.test_error
        table = run.results.tables[TRANSFORMS]
        yield from zip(table["transform"], table["amount"].fillna(0), table["error"], strict=True)


def rows_of_pairs(runs: pd.DataFrame) -> list[str]:
    """Runs of each of STUDY_ROWS: the row with the most seeds, and among those the longest."""
    runs = runs[runs["in_paper"].map(STUDY_ROWS.__contains__).astype(bool)]
    if runs.empty:
        return []
    rows = row_table(runs).sort_values(["networks", "examples"], kind="stable")
    chosen = rows.drop_duplicates("in_paper", keep="last").index
    return list(runs.loc[runs["row"].isin(chosen), "run"])


def means(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds at each point: test_error, its interval low to high, seeds (number), images.

    A single seed has no interval.
    """
    columns = {
        "test_error": ("test_error", "mean"),
        "sd": ("test_error", "std"),
        "seeds": ("seed", "count"),
    }
    groups = found.groupby(["claim", "panel", "place", "network"])
    table = groups.agg(**columns, images=("images", "mean")).reset_index()
    half = t.ppf(0.975, table["seeds"] - 1) * table["sd"] / np.sqrt(table["seeds"])
    ends = table["test_error"] - half, table["test_error"] + half
    return table.assign(low=ends[0].clip(lower=0), high=ends[1].clip(upper=100))


def scores(found: pd.DataFrame) -> pd.DataFrame:
    """One error for each panel of COMPARED, network and seed: the mean over all angles, or over the
    training sets of up to FEW digits. Networks without the whole curve are left out.
    """
    tables = [pd.DataFrame(columns=["panel", "network", "seed", "test_error", "images"])]
    for panel, part in found[found["place"] <= FEW].groupby("panel", sort=False):
        if panel not in COMPARED:
            continue
        curves = part.pivot_table("test_error", ["network", "seed"], "place").dropna()
        mean = curves.mean(axis=1)
        if panel == "rotation":
            mean[:] = np.trapezoid(curves, curves.columns) / np.ptp(curves.columns)
        images = part.groupby(["network", "seed"])["images"].first()
        table = mean.to_frame("test_error").join(images).reset_index()
        tables.append(table.assign(panel=panel))
    return pd.concat(tables[1:] or tables)


def comparisons(found: pd.DataFrame) -> pd.DataFrame:
    """The score of each capsule network minus that of its control, where both were trained alike,
    paired over seeds: panel, network, control and the columns of `difference`, with p-values
    corrected for all comparisons (Holm 1979).
    """
    rows = []
    for panel, table in scores(found).groupby("panel", sort=False):
        of = dict(list(table.groupby("network")))
        for network, control in CONTROLS.items():
            if of.keys() >= {network, control} and trained_alike(of[network], of[control]):
                names = {"panel": panel, "network": network, "control": control}
                rows.append(names | difference(of[network], of[control]))
    return corrected(pd.DataFrame(rows))


def trained_alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two networks were shown as many images, or were trained to an equal error, and share
    two seeds or more.
    """
    equal_error = one["panel"].iloc[0] == "rotation"
    equal_images = set(one["images"]) == set(other["images"])
    return (equal_error or equal_images) and len(set(one["seed"]) & set(other["seed"])) > 1
