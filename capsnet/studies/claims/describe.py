"""The page of the claims: a verdict in a sentence, a figure and a table for each claim."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from capsnet.config import RunConfig
from capsnet.nn.registry import NETWORKS
from capsnet.studies.claims.draw import FIGURES
from capsnet.studies.claims.measure import FEW, PANELS, comparisons, means, points
from capsnet.studies.results import Results, markdown, number, picture

INTRODUCTION = """Capsule networks are said to recognise an object whatever its orientation, to be
better with overlapping objects and to learn from smaller sets of training data. Here the paper's
CapsNet is compared with the paper's baseline CNN, and the compact CapsNet with the compact ConvNet.
Both networks of a comparison were shown as many images or, for rotated digits, were trained to an
equal validation error. Intervals are 95 % t intervals over seeds, each of one comparison. The
answer is open unless p < 0.05 after Holm's correction for all comparisons of this page."""


class Claim(NamedTuple):
    heading: str
    protocol: str


CLAIMS = {
    "orientation": Claim(
        "Are capsules better with rotated objects?",
        "Networks are trained on upright digits until they reach the same validation error, since "
        "a better network is better under every transform. A network that does not reach it has no "
        "result.",
    ),
    "overlap": Claim(
        "Are capsules better with overlapping objects?",
        "Networks are trained on pairs or on single digits. Both are tested on the same pairs. A "
        "pair is correct if both digits are.",
    ),
    "digits": Claim(
        "Are capsules better with few training data?",
        "Networks are trained on subsets of the training digits. Networks of the same seed have "
        "the same subsets. A network is shown as many images of a small subset as of a large one.",
    ),
}
SCORES = {  # panel -> what is compared
    "rotation": "its mean error over rotations from -90 to 90 degrees",
    "pairs": "trained on pairs, its error",
    "pair": "trained on single digits, its error on pairs",
    "digits": f"its mean error with up to {FEW:,} training digits",
}
TESTS = {  # panel, place -> row of the table
    ("clean", 0): "upright",
    ("rotation", 30): "rotated by 30 degrees",
    ("rotation", 60): "rotated by 60 degrees",
    ("rotation", 90): "rotated by 90 degrees",
    ("shear", 0.4): "sheared by 0.4",
    ("scale", 0.65): "scaled to 0.65",
    ("translation", 4): "moved by 4 px",
    ("affnist_like_2px", 0): "affNIST's transforms",
    ("pairs", 0): "pairs, trained on pairs",
    ("pair", 0): "pairs, trained on single digits",
    ("pair_digit", 0): "digits of pairs, trained on single digits",
}


def page(
    configs: Mapping[str, RunConfig],
    measured: Mapping[str, Results],
    claims: Mapping[str, str],
    here: Path,
) -> Iterator[str]:
    """Claims with results, and the runs in `claims`, run -> claim, that have none. Figures are
    written to the folder `figures` in `here`.
    """
    found = points(configs, measured, claims)
    compared = comparisons(found)
    yield from ("# Three claims for capsule networks", INTRODUCTION)
    for name, claim in CLAIMS.items():
        part = found[found["claim"] == name]
        tested = set(part["run"])
        missing = [run for run in claims if claims[run] == name and run not in tested]
        yield from (f"## {claim.heading}", claim.protocol)
        if len(part):
            table, path = means(part), here / "figures" / f"claim_{name}.png"
            for one in compared.itertuples():
                if one.panel in PANELS[name]:
                    yield sentence(one)
            FIGURES[name](table, path)
            yield from (picture(claim.heading, path, here), table_markdown(table))
        if missing:
            yield f"Without a result: {', '.join(without_seeds(missing))}."


def sentence(one) -> str:
    """The verdict of one comparison."""
    title, control = NETWORKS[one.network].title, NETWORKS[one.control].title
    interval = f"95 % interval {one.low:+.2f} to {one.high:+.2f}, {one.seeds} seeds, paired"
    if not one.significant:
        difference = f"{one.points:+.2f} points from that of the {control} ({interval})"
        return f"Open for the {title}: {SCORES[one.panel]} differs by {difference}."
    verdict, side = ("Yes", "below") if one.points < 0 else ("No", "above")
    difference = f"{abs(one.points):.2f} points {side} that of the {control} ({interval})"
    return f"{verdict} for the {title}: {SCORES[one.panel]} is {difference}."


def table_markdown(table: pd.DataFrame) -> str:
    """The tests of TESTS, or of every number of training digits, in this order."""
    tests = TESTS | {("digits", n): f"{n:,.0f} training digits" for n in sorted(table["place"])}
    order, networks = list(tests), list(NETWORKS)
    rows = [one for one in table.itertuples() if (one.panel, one.place) in tests]
    rows.sort(key=lambda one: (order.index((one.panel, one.place)), networks.index(one.network)))
    return markdown(
        {
            "test": tests[one.panel, one.place],
            "network": NETWORKS[one.network].title,
            "images shown": f"{one.images:,.0f}",
            "networks": str(one.seeds),
            "test error %": number(one.test_error),
            "95 % interval": "-" if one.seeds < 2 else f"{one.low:.2f} to {one.high:.2f}",
        }
        for one in rows
    )


def without_seeds(runs: Iterable[str]) -> Iterator[str]:
    """Runs by name, those that differ only in their seed as one."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        name, _, seed = run.partition("_seed")
        seeds.setdefault(name, []).append(seed)
    for name, found in seeds.items():
        yield f"{name} (seed {', '.join(found)})" if any(found) else name
