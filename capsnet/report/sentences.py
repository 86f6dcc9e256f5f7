"""What each figure of the report shows, in a sentence made from this run's own numbers.

A finding takes a run's results and its configuration. Where the paper says something to
compare with, the sentence says whether this run agrees; where the paper is silent, so is it. Over
250 lines: a function for each figure, and none knows another.
"""

import pandas as pd

from capsnet.config import RunConfig
from capsnet.report.tables import FEW, Results
from capsnet.studies.perturbation.effects import clearest

PAPER_MEASURES = ("thickness", "slant", "width", "horizontal_centre", "vertical_centre")
LONG = 10_000_000  # images shown: the authors' own trainings are of this order and longer
LENGTHS = {  # of the authors, by the digits in an image
    1: "The authors' README has a training of 38.4M digits.",
    2: "The paper's training set has 60M pairs.",
}
UNITS = {"slant": "degrees", "horizontal_centre": "px", "vertical_centre": "px"}


def training(results: Results, config: RunConfig) -> str:
    curve, trained = results.tables["training"], results.headline
    sentence = (
        f"The loss falls to {trained['loss']:.3f} in {trained['minutes']:.1f} minutes and "
        f"{curve['examples'].iloc[-1]:,} examples"
    )
    if len(curve) > 1:
        fall = 1 - curve["loss"].iloc[-1] / curve["loss"].iloc[-2]
        sentence += f", in the last interval still by {100 * fall:.0f} %"
    last = curve.iloc[-1]
    if last["validation_error"] == last["validation_error"]:  # not NaN
        sentence += (
            f". Of the validation examples {last['validation_error']:.2f} % are wrong at the end, "
            f"of training digits shown in the same way {last['training_error']:.2f} % (the last "
            "points are of all validation digits and as many others, the earlier ones of fewer)"
        )
    longer = last["examples"] < LONG
    return f"{sentence}." + (f" {LENGTHS[config.task.num_digits]}" if longer else "")


def reconstructions(results: Results, config: RunConfig) -> str:
    table = results.tables["separation"]
    squared = table[table["measure"] == "squared_error"].set_index("name")["value"]
    pixels = table[(table["measure"] == "pixels_told_apart") & (table["name"] == "all")]
    error, beside = squared["network"], squared.drop("network")
    of = f"{table.loc[table['name'] == 'network', 'examples'].item():,} test examples"
    trivial = ", ".join(f"{name} {value:.1f}" for name, value in beside.items())
    if config.task.num_digits == 1:
        return (
            "Each digit from its own capsule, as in Figure 3 of the paper: smooth versions that "
            f"keep the shape; failures at the end, from the capsules of the label and of the "
            f"prediction. From the label's capsule they are {error:.1f} squared pixels off on "
            f"average of {of}; answers that need no network: {trivial}."
        )
    share = pixels.iloc[0]
    blurred = table.loc[table["measure"] == "pixels_by_means", "value"].item()
    return (
        "Each of two digits from its own capsule, as in Figure 5 of the paper; a shared pixel may "
        "belong to both, and a capsule whose digit is not there (*) should draw nothing. On pixels "
        "that one digit alone has inked (half white or more) its own reconstruction is the "
        f"brighter one in {share['value']:.1f} % ({share['low']:.1f} to "
        f"{share['high']:.1f}); a coin reaches 50 %, and the mean picture of each class "
        f"{blurred:.1f} %. From the labels' capsules, found or not, the "
        f"reconstructions are {error:.1f} squared pixels off per digit on average of {of}; "
        f"answers that need no network: {trivial}."
    )


def affine(results: Results, config: RunConfig) -> str:
    table, settings = results.tables["robustness"], config.evaluate
    found = table[table["transform"] == "random_affine"].iloc[0]
    degrees, share = settings.affine_degrees, settings.affine_translate
    return (
        f"Under RandomAffine(degrees={degrees:g}, translate=({share:g}, {share:g})), the test of "
        f"the teaching notebook, the error is {found['error']:.2f} % "
        f"({found['error_low']:.2f} to {found['error_high']:.2f}); without, "
        f"{results.headline['error']:.2f} %."
    )


def overview(results: Results, config: RunConfig) -> str:
    return (
        "Figure 4 of the paper shows rows for thickness, skew, width and translation. The largest "
        f"effects of one dimension here, over the whole range from {-config.perturb.range:g} to "
        f"{config.perturb.range:+g}: {largest(results.tables['perturbation'])}."
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


def usual_overview(results: Results, config: RunConfig) -> str:
    table, wide = results.tables["usual"], results.tables["perturbation"]
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


def routing(results: Results, config: RunConfig) -> str:
    table, trained = results.tables["routing"], config.routing.iterations
    by_name = {name: by_iteration(results, name) for name in table["measure"].unique()}
    last = trained - 1
    examples = table["examples"].max()
    share, largest, votes, pull, length, error, change, between, moved = (
        by_name[name]
        for name in (
            "contributed_coupling", "largest_coupling", "votes", "pull", "length", "error",
            "logit_change", "logit_change_change", "coupling_change",
        )
    )  # fmt: skip
    more = (
        f"with {len(error)} iterations the same weights have an error of {error[-1]:.2f} %. "
        f"Means over {examples:,} test examples."
    )
    if trained == 1:
        return (
            f"One pass, so every coupling is even; {votes[0]:.0f} votes carry 80 % of what a "
            f"digit's capsule is made of. Its length is {length[0]:.2f}, the error "
            f"{error[0]:.2f} %; {more}"
        )
    of_last = table[(table["measure"] == "error") & (table["iteration"] == trained)].iloc[0]
    stopped = " or ".join(f"{each:.2f}" for each in error[:last])
    moves = [
        f"{what} {'grows' if values[last] > values[first] else 'shrinks'} from "
        f"{values[first]:.3g} to {values[last]:.3g}{unit}"
        for what, values, first, unit in (
            ("that change", change, 0, ""),
            ("what it differs by from the one before", between, 1, ""),
            ("the change of a coupling", moved, 1, " points"),
        )
    ]
    return (
        f"Each vote weighed by what it adds to the capsule of a digit that is there, the coupling "
        f"to that capsule goes from {share[0]:.0f} to {share[last]:.0f} % over the {trained} "
        f"iterations (the largest one of an image from {largest[0]:.0f} to {largest[last]:.0f} %), "
        f"the capsule's length from {length[0]:.2f} to {length[last]:.2f}. At first "
        f"{votes[0]:.0f} votes carry 80 % of it, in the end {votes[last]:.0f}. All votes that "
        f"point its way add {pull[last]:.0f} % of it, the others, which so weigh less than "
        f"nothing, take {pull[last] - 100:.0f} % away. As trained the error is {error[last]:.2f} % "
        f"({of_last['low']:.1f} to {of_last['high']:.1f}), stopped earlier {stopped} %; {more} "
        f"By Procedure 1 a logit changes by vote times capsule. Over the iterations "
        f"{moves[0]}, {moves[1]}, {moves[2]}. Figure A.1 of the paper is said to be the mean "
        "change of a logit, and to shrink; which of these it shows is not known."
    )


def couplings(results: Results, config: RunConfig) -> str:
    last = config.routing.iterations - 1
    own, other, absent = (
        by_iteration(results, f"{name}_coupling")[last] for name in ("own", "other", "absent")
    )
    if config.task.num_digits == 1:
        beside = f"each wrong digit's {absent:.1f} %"
    else:
        beside = f"the other digit's {other:.1f} % and each absent digit's {absent:.1f} %"
    return (
        "Which primary capsules lean to which digit: at a digit's own places its capsule gets "
        f"{own:.1f} % of the coupling, {beside}. The colours show even small leanings."
    )


def overlap(results: Results, config: RunConfig) -> str:
    table, apart = group(results, "overlap"), results.tables["separation"]
    share = 100 * table["examples"] / table["examples"].sum()
    table = table.assign(share=share)[table["examples"] >= FEW]
    boxes = apart.loc[apart["measure"] == "box_overlap", "value"].item()
    sentence = (
        f"Of the smaller of the digits' bounding boxes {boxes:.0f} % is covered on average (the "
        "paper: 80 %, of which box it does not say). "
    )
    if len(table) < 2:
        return sentence + "There are too few pairs to say how the error grows with the overlap."
    first, last, most = table.iloc[0], table.iloc[-1], table.loc[table["share"].idxmax()]
    grows = "grows" if last["error"] > first["error"] else "does not grow"
    return sentence + (
        f"Ink is shared less, in {most['share']:.0f} % of the pairs {most['name']} of the smaller "
        f"digit's. The error {grows} with it: {first['error']:.1f} % at {first['name']}, "
        f"{last['error']:.1f} % at {last['name']} (ranges with at least {FEW} pairs)."
    )


def pairs(results: Results, config: RunConfig) -> str:
    table = group(results, "pair")
    worst, best = table.loc[table["error"].idxmax()], table.loc[table["error"].idxmin()]
    return (
        f"Among the hardest to tell apart are {worst['name']} ({worst['error']:.0f} % wrong), "
        f"among the easiest {best['name']} ({best['error']:.0f} %): the ends of {len(table)} pairs "
        f"with about {table['examples'].median():.0f} examples each, which chance has a hand in."
    )


def confusion(results: Results, config: RunConfig) -> str:
    table = results.tables["confusion"]
    mistakes = table[table["label"] != table["prediction"]]
    if not mistakes["count"].any():
        return "No digit was taken for another."
    most = mistakes.loc[mistakes["count"].idxmax()]
    sentence = f"Most often a {most['label']} is taken for a {most['prediction']}"
    sentence += f" ({most['count']:,} times)."
    if config.task.num_digits > 1:
        sentence += " Where both digits of a pair were missed, which stands for which is a guess."
    return sentence


def calibration(results: Results, config: RunConfig) -> str:
    bins, counts = results.tables["calibration"], results.tables["counts"]
    bins = bins[bins["group"] == "predicted digits"]
    gaps = (100 * bins["length"] - bins["there"]) * bins["examples"] / bins["examples"].sum()
    side = "longer" if gaps.sum() > 0 else "shorter"
    right = counts[counts["threshold"] == 0.5].set_index("shown")["right"]
    return (
        f"The paper calls lengths probabilities. As such they are "
        f"{gaps.abs().sum():.1f} points off on average, mostly {side} than the digits are right. "
        f"Counting the capsules longer than 0.5 (midway between the margins) finds one digit in "
        f"{right['one digit']:.0f} % of images with one and two in {right['two digits']:.0f} % of "
        f"those with two, on an empty image {'nothing' if right['nothing'] else 'a digit'}, and "
        f"takes shuffled ink for no digit in {right['a digit in shuffled tiles']:.0f} %."
    )


def robustness(results: Results, config: RunConfig) -> str:
    table = results.tables["robustness"]
    combined = table[table["amount"].isna()].set_index("transform")
    name = next(name for name in combined.index if name.startswith("affnist_like"))
    together = combined.loc[name]
    sentence = (
        f"Of {together['examples']:,} test digits {mean_error(table, 'rotation', -20, 20):.1f} % "
        f"are wrong rotated by 20 degrees, {mean_error(table, 'shear', -0.2, 0.2):.1f} % sheared "
        f"by 0.2, {mean_error(table, 'scale', 0.8):.1f} % at 0.8 and "
        f"{mean_error(table, 'scale', 1.2):.1f} % at 1.2 of their size; affNIST's transforms "
        f"together give {together['error']:.1f} % "
        f"({together['error_low']:.1f} to {together['error_high']:.1f})"
    )
    sentence += ", moved by at most 2 px." if name.endswith("2px") else " on its canvas."
    if "affnist" in combined.index:
        sentence += f" On the published affNIST: {combined.loc['affnist', 'error']:.1f} %"
        sentence += " (the paper: 21 %, trained until 99.23 % on plain digits)."
    return sentence


def group(results: Results, name: str) -> pd.DataFrame:
    """The rows of one group in the table of errors."""
    table = results.tables["errors"]
    return table[table["group"] == name]


def by_iteration(results: Results, measure: str) -> list[float]:
    """One measure of the routing, an entry for each iteration."""
    table = results.tables["routing"]
    return table.loc[table["measure"] == measure, "value"].tolist()


def mean_error(table: pd.DataFrame, transform: str, *amounts: float) -> float:
    """Mean error at these amounts: the ends of affNIST's ranges."""
    chosen = (table["transform"] == transform) & table["amount"].isin(amounts)
    return table.loc[chosen, "error"].mean()


FINDINGS = {
    "training.png": training,
    "reconstructions.png": reconstructions,
    "affine.png": affine,
    "overview.png": overview,
    "usual_overview.png": usual_overview,
    "effects.png": effects,
    "routing.png": routing,
    "couplings.png": couplings,
    "overlap.png": overlap,
    "pairs.png": pairs,
    "confusion.png": confusion,
    "calibration.png": calibration,
    "robustness.png": robustness,
}
