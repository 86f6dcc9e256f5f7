"""The effect of each dimension of each class capsule on the shape of the digit, with statistics.

Each image has its own slope of each measure over the values added to a dimension. An effect is the
mean slope with its interval over images. It is significant if it differs from zero in a t test at
5 % over all tests of the run (Bonferroni) and its change is visible.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

# The fields of morphometry.Shapes -> unit. A change of those that are not ABSOLUTE is also given in
# percent of the digit's own.
ABSOLUTE = {"slant": "degrees", "horizontal_centre": "px", "vertical_centre": "px"}
MEASURES = {"thickness": "px", "width": "px", "height": "px", "area": "px^2", "sharpness": "1/px"}
MEASURES |= ABSOLUTE
TONES = {"brightness": "of white", "contrast": "of white"}
VISIBLE = {  # smallest visible change over the sweep: half a pixel, or about as much
    "px": 0.5,
    "degrees": 3.0,  # moves either end of a digit 20 px high by half a pixel
    "px^2": 10.0,  # percent, as for sharpness: a stroke 3 px thick grows by a third of a pixel
    "1/px": 10.0,
    "of white": 10.0,
}
IN_PERCENT = ("px^2", "1/px", "of white")
LEVEL = 0.05  # of a false alarm: in one interval, and in all tests of a run together
SAME_SHAPE = 85.0  # percent of shared ink from which the whole digit moves, not a part of it
COLUMNS = [
    "digit", "dimension", "limit", "measure", "unit", "slope", "slope_low", "slope_high", "change",
    "change_percent", "effect", "rank_correlation", "significant", "name", "ink_difference",
    "shape_overlap", "examples",
]  # fmt: skip


class Slopes(NamedTuple):
    """One measure of one digit, for each image and dimension: [n, d].

    `slope` is per unit added to the dimension, `rank_correlation` Spearman's; both are NaN where a
    reconstruction has no ink. `middle` [n] is the measure of the unperturbed image.
    """

    slope: np.ndarray
    rank_correlation: np.ndarray
    middle: np.ndarray


class Sweep(NamedTuple):
    """All measurements of one digit."""

    slopes: dict[str, Slopes]  # by measure
    limit: np.ndarray  # [d] largest value added to each dimension
    ink_difference: np.ndarray  # [d] percent, between the two ends
    shape_overlap: np.ndarray  # [d] percent, of the two ends laid over each other


def fit_slopes(measured: np.ndarray, values: np.ndarray) -> Slopes:
    """Least-squares slope and rank correlation over the last axis of `measured` [n, d, v] against
    the rising `values` [d, v]; zero for a dimension that was not moved.
    """
    from scipy import stats

    num_values = values.shape[-1]
    centred = values - values.mean(axis=-1, keepdims=True)
    squares = (centred**2).sum(axis=-1)
    slope = (measured * centred).sum(axis=2) / np.where(squares > 0, squares, 1)
    ranks = stats.rankdata(measured, axis=2) - (num_values + 1) / 2
    order = np.arange(num_values) - (num_values - 1) / 2
    size = np.sqrt((ranks**2).sum(axis=2) * (order @ order))
    # Equal ranks correlate with nothing: zero.
    correlation = np.divide(ranks @ order, size, out=np.zeros_like(size), where=size > 0)
    correlation[np.isnan(slope)] = np.nan
    return Slopes(slope, correlation, measured[:, 0, num_values // 2])


def effect_table(sweeps: dict[int, Sweep]) -> pd.DataFrame:
    """A row of COLUMNS for each digit, dimension and measure.

    `change` is the change from -limit to +limit, `change_percent` the same relative to the
    unperturbed digit (NaN for slant and centres), `effect` the same in multiples of the measure's
    root mean square over all dimensions of all digits. `name` is the dimension's significant
    measure with the largest effect, or "none".
    """
    num_tests = sum(
        one.slope.shape[1] for sweep in sweeps.values() for one in sweep.slopes.values()
    )
    tables = []
    for digit, sweep in sweeps.items():
        shared = {name: value for name, value in sweep._asdict().items() if name != "slopes"}
        for name, slopes in sweep.slopes.items():
            table = _statistics(name, slopes, sweep.limit, num_tests)
            tables.append(table.assign(digit=digit, **shared))
    effects = pd.concat(tables).rename_axis("dimension").reset_index()
    effects = effects.sort_values(["digit", "dimension"], ignore_index=True)  # keeps the order
    typical = np.sqrt(effects["change"].pow(2).groupby(effects["measure"]).transform("mean"))
    effects["effect"] = effects["change"] / typical.where(typical > 0)
    best = strongest(effects, ["digit", "dimension"])
    names = {(row["digit"], row["dimension"]): effect_words(row) for _, row in best.iterrows()}
    keys = zip(effects["digit"], effects["dimension"], strict=True)
    return effects.assign(name=[names.get(key, "none") for key in keys])[COLUMNS]


def _statistics(measure: str, slopes: Slopes, limit: np.ndarray, num_tests: int) -> pd.DataFrame:
    """One row for each dimension of one digit and measure. Means are over images with ink."""
    from scipy import stats

    slope, unit = pd.DataFrame(slopes.slope), (MEASURES | TONES)[measure]
    mean, count, error = slope.mean(), slope.count(), slope.sem()  # NaN for one image
    half, sure = (error * stats.t.ppf(1 - p / 2, count - 1) for p in (LEVEL, LEVEL / num_tests))
    change, middle = 2 * limit * mean, slopes.middle[:, None]
    own = np.nansum(middle, axis=0).item() / max(1, np.isfinite(middle).sum())
    percent = np.nan if measure in ABSOLUTE else 100 * change / own
    visible = np.abs(percent if unit in IN_PERCENT else change) >= VISIBLE[unit]
    return pd.DataFrame(
        {
            "measure": measure,
            "unit": unit,
            "slope": mean,
            "slope_low": mean - half,
            "slope_high": mean + half,
            "change": change,
            "change_percent": percent,
            "rank_correlation": pd.DataFrame(slopes.rank_correlation).mean(),
            "significant": visible & (np.abs(mean) > sure),
            "examples": count,
        }
    )


def strongest(effects: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The row with the largest significant effect in each group that has one."""
    clear = effects[effects["significant"].astype(bool) & effects["effect"].notna()]
    return clear.loc[clear["effect"].abs().groupby([clear[name] for name in by]).idxmax()]


def clearest(effects: pd.DataFrame) -> pd.DataFrame:
    """The row with the largest significant effect on each measure, in the table's order."""
    order = list(effects["measure"].unique())
    return strongest(effects, ["measure"]).sort_values("measure", key=lambda m: m.map(order.index))


def effect_words(row: pd.Series) -> str:
    """ "thickness +1.2 px", "area +38 %", "slant +12°", "moves right 0.8 px"; a minus is U+2212.

    If the shape changes, only the centre moves: "centre right 0.8 px".
    """
    change, measure, unit = row["change"], row["measure"], row["unit"]
    if measure.endswith("_centre"):
        ways = ("left", "right") if measure == "horizontal_centre" else ("down", "up")
        side = "moves" if row["shape_overlap"] >= SAME_SHAPE else "centre"
        return f"{side} {ways[int(change > 0)]} {abs(change):.1f} px"
    numbers = {"degrees": f"{change:+.0f}°", "px": f"{change:+.1f} px"}
    number = numbers.get(unit, f"{row['change_percent']:+.0f} %")
    return f"{measure} {number}".replace("-", "\N{MINUS SIGN}")
