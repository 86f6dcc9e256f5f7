"""The three claims, on made-up errors."""

import pandas as pd
import pytest

from capsnet.studies.claims.describe import page, sentence
from capsnet.studies.claims.measure import TRANSFORMS, comparisons, points, scores
from tests.studies.test_seeds import configs, results

NUMBERS = {"stop_at_error": 9.0, "task": "mnist"}


def rotated(name: str, errors: list[float]):
    """Results with these errors at -90, 0 and 90 degrees, and with 50 % of the pairs wrong."""
    transforms = ["rotation"] * 3 + ["pair", "pair_digit", "random_affine"]
    amounts = [-90, 0, 90, None, None, None]
    table = {"transform": transforms, "amount": amounts, "error": [*errors, 50.0, 30.0, 9.0]}
    found = results(name, 1.0)  # 3 % on validation digits
    found.tables["training"]["examples"] = 640
    return found._replace(tables=found.tables | {TRANSFORMS: pd.DataFrame(table)})


def curve(panel: str, network: str, errors: dict[int, list[float]], images=100) -> pd.DataFrame:
    """Points of one network: errors by place, in the order of the seeds."""
    same = {"claim": "digits", "panel": panel, "network": network, "images": images}
    return pd.DataFrame(
        {**same, "run": f"{network}{seed}", "place": place, "seed": seed, "test_error": error}
        for place, of_seeds in errors.items()
        for seed, error in enumerate(of_seeds)
    )


def test_points_are_the_tests_of_each_claim():
    """A run that did not reach its error has none. Pairs are those of the row with most seeds."""
    runs = configs(
        turned=NUMBERS | {"network": "compact"},
        early=NUMBERS | {"network": "compact", "stop_at_error": 2.0},
        single={"task": "mnist36", "network": "compact"},
        few={"task": "mnist", "training_digits": 100},
        r3={"seed": 1},
        r3_again={"seed": 2},
        long={"examples": 9000},
        r1={"iterations": 1},
    )
    claims = {"turned": "orientation", "early": "orientation", "single": "overlap", "few": "digits"}
    found = points(runs, {name: rotated(name, [80, 2, 60]) for name in runs}, claims)
    numbers = found.groupby("run")["panel"].agg(list).to_dict()
    assert numbers == {
        "turned": ["clean", "rotation", "rotation", "rotation"],
        "single": ["pair", "pair_digit"],
        "few": ["digits"],
        "r3": ["pairs"],
        "r3_again": ["pairs"],
    }
    assert found.loc[found["run"] == "turned", "images"].unique().tolist() == [640]
    assert found.loc[found["run"] == "few", "place"].tolist() == [100]
    assert points(runs, {}, claims).empty


def test_a_score_is_the_mean_of_a_curve():
    """Over the angles -90, -30 and 90 with 60, 30 and 0 %: (60 * 45 + 120 * 15) / 180 = 25. Of the
    training sets up to 1,000 digits: (9 + 3) / 2. A seed without the whole curve has none.
    """
    angles = curve("rotation", "compact", {-90: [60.0], -30: [30.0], 90: [0.0]})
    sizes = curve("digits", "compact", {100: [9.0, 9.0], 1000: [3.0], 57000: [1.0]})
    found = scores(pd.concat([angles, sizes]))
    assert found[["panel", "seed", "test_error"]].values.tolist() == [
        ["rotation", 0, 25.0],
        ["digits", 0, 6.0],
    ]


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ([8.0, 8.1, 7.9], "Yes for the compact CapsNet: its mean error with up to 1,000 training "),
        ([12.0, 12.1, 11.9], "No for the compact CapsNet: "),
        ([8.0, 10.0, 12.5], "Open for the compact CapsNet: "),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(errors, words):
    ours = curve("digits", "compact", {100: errors})
    other = curve("digits", "compact_convnet", {100: [10.0, 10.2, 10.1]})
    [one] = comparisons(pd.concat([ours, other])).itertuples()
    assert sentence(one).startswith(words) and "3 seeds, paired" in sentence(one)
    assert one.points == pytest.approx(sum(errors) / 3 - 10.1)


def test_networks_are_compared_with_their_control_if_trained_alike():
    """The same images, or rotated digits at an equal error, and two seeds at least."""
    caps = curve("digits", "capsnet", {100: [9.0, 9.1]})
    baseline = curve("digits", "baseline", {100: [8.0, 8.2]})
    longer = curve("digits", "baseline", {100: [8.0, 8.2]}, images=999)
    assert comparisons(pd.concat([caps, baseline]))["control"].tolist() == ["baseline"]
    assert comparisons(pd.concat([caps, longer])).empty
    assert comparisons(pd.concat([caps, baseline[:1]])).empty
    turned = [part.assign(panel="rotation") for part in (caps, longer)]
    turned = pd.concat([*turned, *(part.assign(place=0) for part in turned)])
    assert comparisons(turned)["control"].tolist() == ["baseline"]


@pytest.mark.parametrize(("claim", "task"), [("orientation", "mnist"), ("overlap", "mnist36")])
def test_the_page_draws_what_is_there_and_names_what_is_missing(tmp_path, claim, task):
    numbers = {"task": task}
    seeds = {f"net_seed{seed}": numbers | {"network": "compact", "seed": seed} for seed in (1, 2)}
    runs = configs(**seeds, gone_seed1=numbers, gone_seed2=numbers | {"seed": 2})
    measured = {name: rotated(name, [80, 2, 60]) for name in seeds}
    text = "\n\n".join(page(runs, measured, dict.fromkeys(runs, claim), tmp_path))
    assert (tmp_path / "figures" / f"claim_{claim}.png").is_file()
    assert "Without a result: gone (seed 1, 2)." in text and text.count("![") == 1
    assert "| compact CapsNet | " in text
