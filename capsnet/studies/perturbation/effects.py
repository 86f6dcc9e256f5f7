"""What each dimension of each digit's capsule does to the shape of the digit, with statistics.

Every image has its own slope of each measure over the values added to a dimension; an effect is the
mean slope with the interval of that mean over images. Two conditions make it significant: the mean
differs from zero in a t test at 5 % over the whole family (Bonferroni: digits x dimensions x
measures), and the change is one that can be seen. With a hundred images the first alone would call
almost everything an effect.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

VISIBLE = {  # least change over the sweep that counts: half a pixel, or about as much
    "px": 0.5,
    "degrees": 3.0,  # moves either end of a digit 20 px high by half a pixel
    "px^2": 10.0,  # percent, as for sharpness: a stroke 3 px thick grows by a third of a pixel
    "1/px": 10.0,
}
LEVEL = 0.05  # of a false alarm: in one interval, and in all tests of a run together
SAME_SHAPE = 85.0  # percent of shared ink from which what moves is the digit, not a part of it
COLUMNS = [
    "digit", "dimension", "limit", "measure", "unit", "slope", "slope_low", "slope_high", "change",
    "change_percent", "effect", "rank_correlation", "significant", "name", "ink_difference",
    "shape_overlap", "examples",
]  # fmt: skip


class Slopes(NamedTuple):
    """Of one measure of one digit, an entry for each image and dimension: [n, d].

    `slope` is per unit added to the dimension, `rank_correlation` Spearman's; both are NaN where
    one of the image's reconstructions has no ink. `middle` [n] is the unperturbed image's measure.
    """

    slope: np.ndarray
    rank_correlation: np.ndarray
    middle: np.ndarray


class Sweep(NamedTuple):
    """What was measured of one digit."""

    slopes: dict[str, Slopes]  # by measure
    limit: np.ndarray  # [d] how far each dimension was moved, either way
    ink_difference: np.ndarray  # [d] percent, of the two ends
    shape_overlap: np.ndarray  # [d] percent, of the two ends laid over each other


def fit_slopes(measured: np.ndarray, values: np.ndarray) -> Slopes:
    """Least-squares slope and rank correlation over the last axis of `measured` [n, d, v], whose
    dimensions were moved by the rising `values` [d, v]; zero for one that was not moved.
    """
    from scipy import stats

    num_values = values.shape[-1]
    centred = values - values.mean(axis=-1, keepdims=True)
    squares = (centred**2).sum(axis=-1)
    slope = (measured * centred).sum(axis=2) / np.where(squares > 0, squares, 1)
    ranks = stats.rankdata(measured, axis=2) - (num_values + 1) / 2
    order = np.arange(num_values) - (num_values - 1) / 2
    size = np.sqrt((ranks**2).sum(axis=2) * (order @ order))
    # Where nothing changes all ranks are equal and correlate with nothing: zero.
    correlation = np.divide(ranks @ order, size, out=np.zeros_like(size), where=size > 0)
    correlation[np.isnan(slope)] = np.nan
    return Slopes(slope, correlation, measured[:, 0, num_values // 2])


def effect_table(sweeps: dict[int, Sweep]) -> pd.DataFrame:
    """A row for each digit, dimension and measure.

    `change` is from -limit to +limit in the measure's unit, `change_percent` the same in percent of
    the unperturbed digit (NaN for slant and centres, which have no zero to be relative to),
    `effect` the same in multiples of the measure's typical change (root mean square) over all
    dimensions of all digits. `name` belongs to the dimension: its significant measure with the
    largest effect, so what sets it apart from the others, or "none".
    What a sweep says of a dimension is copied to each of its rows.
    """
    if not sweeps:
        return pd.DataFrame(columns=COLUMNS)
    from capsnet.studies.perturbation.morphometry import MEASURES

    num_tests = sum(
        one.slope.shape[1] for digit in sweeps.values() for one in digit.slopes.values()
    )
    tables = []
    for digit, sweep in sweeps.items():
        of_each = {name: value for name, value in sweep._asdict().items() if name != "slopes"}
        for name, found in sweep.slopes.items():
            table = _statistics(name, found, sweep.limit, num_tests)
            table = table.assign(digit=digit, measure=name, unit=MEASURES[name].unit)
            tables.append(table.assign(**of_each))
    effects = pd.concat(tables).rename_axis("dimension").reset_index()
    order = effects["measure"].map(list(MEASURES).index)
    effects = effects.assign(order=order).sort_values(["digit", "dimension", "order"])
    typical = np.sqrt(effects["change"].pow(2).groupby(effects["measure"]).transform("mean"))
    effects["effect"] = effects["change"] / typical.where(typical > 0)
    return _named(effects.reset_index(drop=True))[COLUMNS]


def _statistics(name: str, found: Slopes, limit: np.ndarray, num_tests: int) -> pd.DataFrame:
    """One row for each dimension of a digit and measure."""
    from scipy import stats

    from capsnet.studies.perturbation.morphometry import MEASURES

    finite = np.isfinite(found.slope)
    count = finite.sum(axis=0)
    enough = np.where(count > 1, count, np.nan)  # one image says nothing about the others
    mean = _mean(found.slope)
    deviation = np.sqrt(_mean((found.slope - mean) ** 2) * count / (enough - 1))
    error = deviation / np.sqrt(enough)
    half = error * stats.t.ppf(1 - LEVEL / 2, enough - 1)
    sure = error * stats.t.ppf(1 - LEVEL / num_tests / 2, enough - 1)
    middle, unit = _mean(found.middle[:, None]), MEASURES[name].unit
    change = 2 * limit * mean
    percent = 100 * change / middle if MEASURES[name].relative else np.full_like(change, np.nan)
    visible = np.abs(percent if unit in ("px^2", "1/px") else change) >= VISIBLE[unit]
    return pd.DataFrame(
        {
            "slope": mean,
            "slope_low": mean - half,
            "slope_high": mean + half,
            "change": change,
            "change_percent": percent,
            "rank_correlation": _mean(found.rank_correlation),
            "significant": visible & (np.abs(mean) > sure),
            "examples": count,
        }
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the images [n, d] without the NaN: [d], NaN where there is nothing else."""
    count = np.isfinite(values).sum(axis=0)
    total, none = np.nansum(values, axis=0), np.full(len(count), np.nan)
    return np.divide(total, count, out=none, where=count > 0)


def _named(effects: pd.DataFrame) -> pd.DataFrame:
    """With the name of each dimension on all its rows."""
    names = {}
    for key, rows in effects.groupby(["digit", "dimension"]):
        clear = rows[rows["significant"] & rows["effect"].notna()]
        names[key] = "none"
        if len(clear):
            names[key] = effect_words(clear.loc[clear["effect"].abs().idxmax()])
    keys = zip(effects["digit"], effects["dimension"], strict=True)
    return effects.assign(name=[names[key] for key in keys])


def effect_words(row: pd.Series) -> str:
    """In words: "thickness +38 %", "slant +12°", "moves right 0.8 px"; a minus is U+2212. Only what
    keeps its shape moves; of another the centre does: "centre right 0.8 px".
    """
    change, measure = row["change"], row["measure"]
    if measure.endswith("_centre"):
        ways = ("left", "right") if measure == "horizontal_centre" else ("down", "up")
        side = "moves" if row["shape_overlap"] >= SAME_SHAPE else "centre"
        return f"{side} {ways[int(change > 0)]} {abs(change):.1f} px"
    if measure == "slant":
        return f"slant {change:+.0f}°".replace("-", "\N{MINUS SIGN}")
    return f"{measure} {row['change_percent']:+.0f} %".replace("-", "\N{MINUS SIGN}")


def clearest(effects: pd.DataFrame) -> pd.DataFrame:
    """For each measure that has a significant effect, the row with the largest."""
    clear = effects[effects["significant"].astype(bool)]
    largest = clear["effect"].abs().groupby(clear["measure"], sort=False).idxmax()
    measures = [measure for measure in effects["measure"].unique() if measure in largest.index]
    return clear.loc[largest[measures]]
