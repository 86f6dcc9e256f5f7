"""Numbers and decisions in the report's sentences, on made-up tables."""

import pandas as pd
import pytest

from capsnet.config import load
from capsnet.studies.errors.describe import headline, overlap
from capsnet.studies.perturbation.describe import effects, two_sigma_overview
from capsnet.studies.results import FEW, Results
from capsnet.studies.routing.describe import routing
from stages.report import leading_runs
from tests.studies.test_seeds import configs

HEADLINE = {"test_error": 10.0, "test_error_low": 9.0, "test_error_high": 11.0}
HEADLINE |= {"loss": 0.25, "minutes": 3.0}
ROUTING = ("contributed_coupling", "largest_coupling", "votes", "positive_share", "length", "error",
           "logit_change", "logit_change_change", "coupling_change")  # fmt: skip


def of(run: dict | None = None, **tables: pd.DataFrame):
    """Results with these tables, and the configuration of a CapsNet."""
    return Results("one", HEADLINE, tables), configs(one=run or {})["one"]


def routing_table(**by_measure: list[float]) -> pd.DataFrame:
    """These values by iteration; every other measure is 1."""
    parts = []
    for name in ROUTING:
        values = by_measure.get(name, [1.0] * len(by_measure["error"]))
        rows = {"iteration": range(1, len(values) + 1), "measure": name, "value": values}
        parts.append(pd.DataFrame(rows))
    return pd.concat(parts).assign(low=0.5, high=1.5, examples=400)


def test_a_capsnet_leads_its_task():
    runs = configs(
        cnn={"task": "mnist", "network": "baseline"},
        first={"task": "mnist"},
        second={"task": "mnist", "iterations": 1},
        only={"task": "multimnist", "network": "baseline"},
    )
    assert leading_runs(runs) == ["first", "only"]


def test_routing_ends_at_the_trained_iterations():
    table = routing_table(contributed_coupling=[10.0, 16.0, 30.0, 99.0], error=[12, 11, 10.5, 20])
    words = routing(*of({"iterations": 3}, routing=table))
    for numbers in ("from 10 to 30 %", "10.50 % (0.5 to 1.5) as trained, 12.00 or 11.00 % if",
                    "With 4 iterations the same weights have an error of 20.00 %"):  # fmt: skip
        assert numbers in words
    table = routing_table(votes=[12.0, 9.0], length=[0.6, 0.7], error=[11.0, 13.0])
    words = routing(*of({"iterations": 1}, routing=table))
    assert "12 votes" in words and "0.60" in words and "11.00 %" in words


def test_a_rising_error_is_explained():
    """10 % after 1 and 2 iterations, 20 % after 3, with the interval from 15 %: beyond 10 %. The
    largest coupling is 10, 20 and 90 %. A falling error needs no reason.
    """
    table = routing_table(error=[10.0, 10.0, 20.0], largest_coupling=[10.0, 20.0, 90.0])
    words = routing(*of({"iterations": 2}, routing=table.assign(low=15.0)))
    assert "rises from iteration 2 to 3: the weights are trained for 2. " in words
    assert "the largest from 10 over 20 to 90 %" in words
    words = routing(*of({"iterations": 3}, routing=table))
    assert "rises from iteration 1 to 3 (within the interval)" in words
    table = routing_table(error=[20.0, 10.0, 10.0])
    assert "rises" not in routing(*of({"iterations": 2}, routing=table))


@pytest.mark.parametrize(
    ("last", "examples", "words"),
    [(30.0, FEW, "The error rises with the overlap: 20.0 % at 0 to 20 %, 30.0 % at 20 to 40 %"),
     (21.0, FEW, "does not clearly rise"), (30.0, FEW - 1, "too few pairs")],
)  # fmt: skip
def test_ranges_of_few_pairs_are_not_compared(last, examples, words):
    errors = {"group": "overlap", "name": ["0 to 20 %", "20 to 40 %"], "error": [20.0, last]}
    errors = pd.DataFrame(errors | {"examples": [900, examples]})
    errors = errors.assign(error_low=errors["error"] - 2, error_high=errors["error"] + 2)
    boxes = pd.DataFrame({"measure": ["box_overlap"], "name": ["all"], "value": [72.0]})
    found = overlap(*of(errors=errors, separation=boxes))
    assert "72 %" in found and words in found


def test_small_digits_are_not_called_mnist_nor_compared_with_the_paper():
    config = of()[1].model_copy(update={"source": "scikit_learn"})
    assert config.title == "one (scikit_learn)" and of()[1].title == "one"
    errors = pd.DataFrame({"group": "all", "examples": [297]})
    measured = {"one": Results("one", HEADLINE, {"errors": errors})}
    assert "paper" not in headline({"one": config}, measured)
    assert "5.2" in headline({"one": of()[1]}, measured)


@pytest.mark.parametrize(
    ("deviations", "words"), [(8, "most of"), (3, "part of"), (2, "little of")]
)
def test_the_range_of_figure_4_is_told_in_standard_deviations(deviations, words):
    """Dimension 0 has no significant effect; 1 and 2 move the centre, 2 without keeping shape."""
    rows = pd.DataFrame({"digit": 0, "dimension": [0, 1, 2], "shape_overlap": [99.0, 90.0, 50.0]})
    rows = rows.assign(limit=2 * load().perturb.range / deviations, change=1.0, effect=1.0)
    rows = rows.assign(measure="vertical_centre", significant=[False, True, True])
    found = two_sigma_overview(*of(two_sigma=rows))
    assert f"is {deviations:.1f} standard deviations: {words} Figure 4" in found
    assert "2 of 3 dimensions change" in found and found.endswith("fit best): 1.")


def test_measures_and_digits_without_an_effect_are_not_counted():
    """Dimension 0 of digit 0 changes width and slant, dimension 1 width; digit 1 is unchanged."""
    keys = ["digit", "dimension", "measure", "significant"]
    rows = [(0, 0, "width", True), (0, 0, "slant", True), (0, 1, "width", True)]
    rows += [(1, 0, "width", False), (1, 0, "height", False)]
    words = effects(*of(perturbation=pd.DataFrame(rows, columns=keys).assign(effect=1.0)))
    assert words.startswith("2 of 3 dimensions") and ": width by 2, slant by 1. " in words
    assert "1 of them change several" in words and words.endswith("no dimension changes: 1.")
