"""What the dimensions of a class capsule change, in sentences."""

import pandas as pd

from capsnet.config import RunConfig
from capsnet.studies.perturbation.effects import MEASURES, SAME_SHAPE, TONES, clearest, strongest
from capsnet.studies.results import Results, Section

PAPER_MEASURES = "thickness", "slant", "width", "horizontal_centre", "vertical_centre"
NO_SHAPES = (
    " Shape is left out, since the images do not show one bright object on dark; brightness and "
    "contrast are measured."
)
DIMENSION = ["digit", "dimension"]


def overview(results: Results, config: RunConfig) -> str:
    return (
        "Figure 4 of the paper has rows for thickness, skew, width and translation. Largest "
        f"effects of one dimension here, from {-config.perturb.range:g} to "
        f"{config.perturb.range:+g}: {largest(results.tables['perturbation'])}."
    )


def effects(results: Results, config: RunConfig) -> str:
    table = results.tables["perturbation"]
    clear = table[table["significant"].astype(bool)]
    named, each = strongest(table, DIMENSION), clear["measure"].value_counts()
    counts = ", ".join(
        f"{name.replace('_', ' ')} by {each[name]}"
        for name in table["measure"].unique()
        if name in each
    )
    several = (clear.groupby(DIMENSION).size() > 1).sum()
    changed = set(named["digit"])
    unchanged = [digit for digit in table["digit"].unique() if digit not in changed]
    sentence = (
        f"{len(named)} of {count(table)} dimensions of the class capsules change a "
        f"shape measure visibly and significantly{f': {counts}' if counts else ''}. "
        f"{several} of them change several measures; the name of a dimension is its most "
        f"distinctive one. Values are means over up to {config.perturb_examples} test digits of "
        "each class. perturbation.csv has every slope with its interval."
    )
    if unchanged:
        sentence += f" Digits that no dimension changes: {', '.join(map(str, unchanged))}."
    if tones(table):
        sentence = sentence.replace("a shape measure", "a measure") + NO_SHAPES
    return sentence


def two_sigma_overview(results: Results, config: RunConfig) -> str:
    table = results.tables["two_sigma"]
    sigma = table.drop_duplicates(DIMENSION)["limit"] / 2
    if not sigma.median() > 0:
        return "There is one capsule of each digit, so its standard deviation is unknown."
    times = config.perturb.range / sigma.median()
    beyond = "most" if times > 4 else "part" if times > 2.5 else "little"
    named = strongest(table, DIMENSION)
    centre = named["measure"].isin(["horizontal_centre", "vertical_centre"])
    moves = centre & (named["shape_overlap"] >= SAME_SHAPE)
    sentence = (
        "The standard deviation of a dimension over test digits of one class is "
        f"{sigma.median():.3f} (median; {sigma.min():.3f} to {sigma.max():.3f}). The range of "
        f"{config.perturb.range:g} is {times:.1f} standard deviations: {beyond} of Figure 4 is "
        f"beyond real digits. Within two standard deviations either way, {len(named)} of "
        f"{count(table)} dimensions change a measure visibly. Largest effects: {largest(table)}."
    )
    if tones(table):
        return sentence
    return sentence + (
        " Dimensions that move the digit and keep its shape "
        f"({SAME_SHAPE:.0f} % of the ink shared where both ends fit best): {moves.sum()}."
    )


def tones(table: pd.DataFrame) -> bool:
    """Whether no shape was measured."""
    return table["measure"].isin(TONES).all()


def count(table: pd.DataFrame) -> int:
    return len(table.drop_duplicates(DIMENSION))


def largest(table: pd.DataFrame) -> str:
    """The largest significant effect on each of the paper's measures."""
    best, found = clearest(table).set_index("measure"), []
    for name in (*PAPER_MEASURES, *TONES):
        if name in best.index:
            change, unit = best.loc[name, "change"], MEASURES.get(name, "%")
            change = best.loc[name, "change_percent"] if unit == "%" else change
            found.append(f"{name.replace('_', ' ')} {change:+.3g} {unit}")
    return ", ".join(found) or "none that is visible"


FINDINGS = overview, effects, two_sigma_overview
HEADING = "What each dimension of a capsule means"
SECTION = Section(HEADING, FINDINGS, folder="perturbation", folded="digit_*.png")
