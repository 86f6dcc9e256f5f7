"""What each figure of the report shows, in a sentence made from this run's own numbers.

A finding takes the run's folder, its metrics and the parameters. Where the paper says something to
compare with, the sentence says whether this run agrees; where the paper is silent, so is it.
"""

from math import log2
from pathlib import Path

import pandas as pd

from capsnet.data.mnist import NUM_CLASSES
from capsnet.params import Params

PAPER_MEASURES = ("thickness", "slant", "width", "horizontal_centre", "vertical_centre")
UNITS = {"slant": "degrees", "horizontal_centre": "px", "vertical_centre": "px"}


def training(folder: Path, metrics: dict, params: Params) -> str:
    curve = pd.read_csv(folder / "training.csv")
    trained = metrics["training"]
    sentence = (
        f"The loss falls to {trained['loss']:.3f} in {trained['seconds'] / 60:.1f} minutes and "
        f"{trained['examples']:,} examples"
    )
    if len(curve) > 1:
        last, before = curve["loss"].iloc[-1], curve["loss"].iloc[-2]
        sentence += f", in the last interval still by {100 * (1 - last / before):.0f} %"
    return sentence + ". The paper trained far longer."


def reconstructions(folder: Path, metrics: dict, params: Params) -> str:
    error = metrics["reconstruction_error"]
    if params.runs[folder.name].task != "multimnist":
        return (
            "Each digit from its own capsule, as in Figure 3 of the paper: smooth versions that "
            f"keep the shape, {error:.1f} squared pixels off on average; failures at the end, "
            "from the capsules of the label and of the prediction."
        )
    return (
        "Each of two digits from its own capsule, as in Figure 5 of the paper; a shared pixel may "
        f"belong to both. {error:.1f} squared pixels off per digit on average. A capsule whose "
        "digit is not there (*) should draw nothing."
    )


def affine(folder: Path, metrics: dict, params: Params) -> str:
    measured, settings = metrics["affine"], params.evaluate
    degrees, share = settings.affine_degrees, settings.affine_translate
    return (
        f"Under RandomAffine(degrees={degrees:g}, translate=({share:g}, {share:g})), the test of "
        f"the teaching notebook, the error is {measured['error']:.2f} % "
        f"({measured['error_low']:.2f} to {measured['error_high']:.2f}); without, "
        f"{metrics['error']:.2f} %."
    )


def overview(folder: Path, metrics: dict, params: Params) -> str:
    found = metrics["perturbation"]
    largest = []
    for name in PAPER_MEASURES:
        change = found[name].get("largest_percent", found[name].get("largest_change"))
        if change is not None:
            unit = "%" if "largest_percent" in found[name] else UNITS[name]
            largest.append(f"{name.replace('_', ' ')} {change:+.3g} {unit}")
    paper = "Figure 4 of the paper shows rows for thickness, skew, width and translation"
    if not largest:
        return f"{paper}; here no dimension has a visible effect on any of them."
    return (
        f"{paper}. The largest effects of one dimension here, over the whole range from "
        f"{-params.perturb.range:g} to {params.perturb.range:+g}: {', '.join(largest)}."
    )


def effects(folder: Path, metrics: dict, params: Params) -> str:
    found = metrics["perturbation"]
    counts = ", ".join(
        f"{name.replace('_', ' ')} by {one['dimensions']}"
        for name, one in found.items()
        if isinstance(one, dict)
    )
    return (
        f"{found['named']} of {found['dimensions']} dimensions of the ten digits' capsules change "
        f"a measure of the shape visibly and beyond chance: {counts}. Means over "
        f"{params.chosen_budget.perturb_examples} test digits of each class or all there are. "
        "Most dimensions change several measures at once: the name of one says what stands out. "
        "Every slope with its interval: perturbation.csv."
    )


def routing(folder: Path, metrics: dict, params: Params) -> str:
    found = metrics["routing"]
    entropy, own, change = (
        list(found[name].values()) for name in ("entropy", "own_coupling", "logit_change")
    )
    even = log2(NUM_CLASSES)
    if len(change) == 1:
        return f"One pass: the couplings stay as they are, at {entropy[0]:.2f} bits."
    away = 100 * (1 - entropy[-1] / even)
    moves = "grow" if change[-1] > change[0] else "shrink"
    agrees = "unlike" if moves == "grow" else "as"
    return (
        f"After {len(change)} iterations the couplings' entropy is {entropy[-1]:.3f} bits, "
        f"{away:.1f} % below that of even couplings ({even:.3f}); the places that see one digit "
        f"send {own[-1]:.1f} % of their coupling to its capsule, where even couplings send "
        f"{100 / NUM_CLASSES:.0f} %. The changes of the logits {moves} from {change[0]:.4f} to "
        f"{change[-1]:.4f}, {agrees} in the paper's Figure A.1, where they shrink with each "
        f"iteration. Means over {found['examples']:,} test examples."
    )


def couplings(folder: Path, metrics: dict, params: Params) -> str:
    found = metrics["routing"]
    own, other, absent = (
        list(found[f"{name}_coupling"].values())[-1] for name in ("own", "other", "absent")
    )
    if params.runs[folder.name].task != "multimnist":
        beside = f"each wrong digit's {absent:.1f} %"
    else:
        beside = f"the other digit's {other:.1f} % and each absent digit's {absent:.1f} %"
    return (
        "Which primary capsules lean to which digit: at a digit's own places its capsule gets "
        f"{own:.1f} % of the coupling, {beside}. The colours show even small leanings."
    )


def overlap(folder: Path, metrics: dict, params: Params) -> str:
    table = _group(folder, "overlap")
    first, last = table.iloc[0], table.iloc[-1]
    grows = "grows" if last["error"] > first["error"] else "does not grow"
    return (
        f"The error {grows} with the overlap of the two digits: {first['error']:.1f} % where "
        f"{first['name']} of the smaller one is covered, {last['error']:.1f} % at {last['name']} "
        f"({last['examples']:,.0f} pairs)."
    )


def pairs(folder: Path, metrics: dict, params: Params) -> str:
    table = _group(folder, "pair")
    worst, best = table.loc[table["error"].idxmax()], table.loc[table["error"].idxmin()]
    return (
        f"Hardest to tell apart are {worst['name']} ({worst['error']:.0f} % wrong), easiest "
        f"{best['name']} ({best['error']:.0f} %)."
    )


def confusion(folder: Path, metrics: dict, params: Params) -> str:
    table = pd.read_csv(folder / "confusion.csv")
    mistakes = table[table["label"] != table["prediction"]]
    if not mistakes["count"].any():
        return "No digit was taken for another."
    most = mistakes.loc[mistakes["count"].idxmax()]
    sentence = f"Most often a {most['label']} is taken for a {most['prediction']}"
    sentence += f" ({most['count']:,} times)."
    if params.runs[folder.name].task == "multimnist":
        sentence += " Where both digits of a pair were missed, which stands for which is a guess."
    return sentence


def calibration(folder: Path, metrics: dict, params: Params) -> str:
    bins, right = pd.read_csv(folder / "calibration.csv"), metrics["count_right"]
    bins = bins[bins["group"] == "predicted digits"]
    gap = ((100 * bins["length"] - bins["there"]) * bins["examples"]).sum()
    side = "longer than the digits are right" if gap > 0 else "shorter than the digits are right"
    return (
        f"The paper calls lengths probabilities. As such they are "
        f"{metrics['calibration_error']:.1f} points off on average, mostly {side}. Counting the "
        f"capsules longer than 0.5 (midway between the margins) finds one digit in "
        f"{right['one_digit']:.0f} % of images with one and two in {right['two_digits']:.0f} % of "
        f"those with two, on an empty image {'nothing' if right['nothing'] else 'a digit'}, and "
        f"takes shuffled ink for no digit in {right['shuffled']:.0f} %."
    )


def robustness(folder: Path, metrics: dict, params: Params) -> str:
    found = metrics["robustness"]
    name = next(key for key in found if key.startswith("affnist_like"))
    together = found[name]
    sentence = (
        f"Of {found['examples']:,} test digits {found['rotation_20_degrees']:.1f} % are wrong "
        f"rotated by 20 degrees, {found['shear_20_percent']:.1f} % sheared by 0.2, "
        f"{found['scale_80_percent']:.1f} % at 0.8 and {found['scale_120_percent']:.1f} % at 1.2 "
        f"of their size; affNIST's transforms together give {together['error']:.1f} % "
        f"({together['error_low']:.1f} to {together['error_high']:.1f})"
    )
    sentence += ", moved by at most 2 px." if name.endswith("2px") else " on its canvas."
    if "affnist" in found:
        sentence += f" On the published affNIST: {found['affnist']['error']:.1f} %"
        sentence += " (the paper: 21 %, trained until 99.23 % on plain digits)."
    return sentence


def _group(folder: Path, group: str) -> pd.DataFrame:
    table = pd.read_csv(folder / "errors.csv", dtype={"name": str})
    return table[table["group"] == group]


FINDINGS = {
    "training.png": training,
    "reconstructions.png": reconstructions,
    "affine.png": affine,
    "overview.png": overview,
    "effects.png": effects,
    "routing.png": routing,
    "couplings.png": couplings,
    "overlap.png": overlap,
    "pairs.png": pairs,
    "confusion.png": confusion,
    "calibration.png": calibration,
    "robustness.png": robustness,
}
