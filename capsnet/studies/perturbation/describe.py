"""What the dimensions of a capsule do, in sentences."""

import pandas as pd

from capsnet.config import RunConfig
from capsnet.studies.perturbation.effects import clearest
from capsnet.studies.results import Results, Section

PAPER_MEASURES = ("thickness", "slant", "width", "horizontal_centre", "vertical_centre")
UNITS = {"slant": "degrees", "horizontal_centre": "px", "vertical_centre": "px"}


def overview(results: Results, config: RunConfig) -> str:
    return (
        "Figure 4 of the paper shows rows for thickness, skew, width and translation. The largest "
        f"effects of one dimension here, over the whole range from {-config.perturb.range:g} to "
        f"{config.perturb.range:+g}: {largest(results.tables['perturbation'])}."
    )


def effects(results: Results, config: RunConfig) -> str:
    table = results.tables["perturbation"]
    dimensions = table.drop_duplicates(["digit", "dimension"])
    significant = table["significant"].astype(bool).groupby(table["measure"], sort=False).sum()
    counts = ", ".join(f"{name.replace('_', ' ')} by {n}" for name, n in significant.items())
    return (
        f"{(dimensions['name'] != 'none').sum()} of {len(dimensions)} dimensions of the ten "
        f"digits' capsules change a measure of the shape visibly and beyond chance: {counts}. "
        f"Means over {config.perturb_examples} test digits of each class or all "
        "there are. Most dimensions change several measures at once: the name of one says what "
        "stands out. Every slope with its interval: perturbation.csv."
    )


def two_sigma_overview(results: Results, config: RunConfig) -> str:
    table, wide = results.tables["two_sigma"], results.tables["perturbation"]
    reach = table.drop_duplicates(["digit", "dimension"])["limit"] / 2
    if not reach.median() > 0:
        return "One capsule of each digit was looked at, so how it varies is not known."
    named = (table.drop_duplicates(["digit", "dimension"])["name"] != "none").sum()
    times = config.perturb.range / reach.median()
    beyond = "most" if times > 4 else "part" if times > 2.5 else "little"
    moves = table.loc[table["name"].str.startswith("moves"), ["digit", "dimension"]]
    return (
        f"A dimension's standard deviation over test digits of one class is {reach.median():.3f} "
        f"(median; from {reach.min():.3f} to {reach.max():.3f}), so {config.perturb.range:g} is "
        f"{times:.1f} of them: {beyond} of Figure 4 is beyond real digits. Moved by two standard "
        f"deviations either way {named} of "
        f"{len(wide.drop_duplicates(['digit', 'dimension']))} dimensions change a measure visibly; "
        f"the largest effects there are {largest(table)}. Called a translation is only what keeps "
        "its shape (85 % of the ink shared where both ends fit best): of those there are "
        f"{len(moves.drop_duplicates())}."
    )


def largest(table: pd.DataFrame) -> str:
    """Of each of the paper's measures the largest visible effect."""
    best, found = clearest(table).set_index("measure"), []
    for name in PAPER_MEASURES:
        if name in best.index:
            unit = UNITS.get(name, "%")
            change = best.loc[name, "change" if name in UNITS else "change_percent"]
            found.append(f"{name.replace('_', ' ')} {change:+.3g} {unit}")
    return ", ".join(found) or "none that is visible"


SECTION = Section(
    "What each dimension of a capsule means",
    {
        "perturbation/overview.png": overview,
        "perturbation/effects.png": effects,
        "perturbation/two_sigma_overview.png": two_sigma_overview,
    },
    folded="perturbation/digit_*.png",
)
