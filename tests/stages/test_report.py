"""The report's tables and sentences, on metrics made up so that the words are known."""

import math

import pandas as pd
import pytest

from capsnet.params import Run, load_params
from capsnet.report import comparisons, tables
from capsnet.report.tables import Results
from stages.report import leading_runs


def params_with(**runs: dict):
    """The repository's parameters with these runs, on MNIST whatever the chosen budget is."""
    params = load_params()
    budgets = {params.budget: params.chosen_budget.model_copy(update={"source": "mnist"})}
    settings = {name: Run(**{"network": "capsnet", **run}) for name, run in runs.items()}
    return params.model_copy(update={"budgets": budgets, "runs": settings})


def measured(error: float) -> Results:
    headline = {"error": error, "error_low": error - 1, "error_high": error + 1}
    return Results("", headline, {})


def test_the_paper_stands_beside_what_it_published():
    params = params_with(
        plain={"task": "mnist"},
        short={"task": "multimnist", "iterations": 1},
        without={"task": "mnist", "reconstruction_weight": 0.0},
        cnn={"task": "multimnist", "network": "baseline"},
        wide={"task": "mnist40"},
    )
    found = {name: tables.published(params, name) for name in params.runs}
    expected = {"plain": "0.25 ± 0.005", "short": "7.5", "without": "0.35 ± 0.036"}
    assert found == expected | {"cnn": "8.1", "wide": None}
    words = {name: tables.routing_of(params, name) for name in params.runs}
    assert words["short"] == "r = 1" and words["cnn"] == "-"


def test_seeds_become_a_mean_and_a_standard_deviation():
    """1, 2 and 3 %: mean 2, standard deviation 1."""
    params = params_with(
        a={"task": "mnist", "seed": 1},
        b={"task": "mnist", "seed": 2},
        c={"task": "mnist", "seed": 3},
        other={"task": "multimnist"},
    )
    metrics = {name: measured(error) for name, error in zip("abc", (1.0, 2.0, 3.0), strict=True)}
    text = tables.seeds_table(params, metrics | {"other": measured(20.0)})
    assert "| a, b, c | **2.00 ± 1.000** | 3 | 0.25 ± 0.005 |" in text
    one = params_with(a={"task": "mnist"})
    assert tables.seeds_table(one, {"a": measured(1.0)}) == ""


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            25.0,
            "5.00 points less; the intervals are apart)",
        ),
        (
            21.0,
            "1.00 points less; the intervals overlap",
        ),
        (
            15.0,
            "5.00 points more; the intervals are apart)",
        ),
    ],
)
def test_whether_agreement_matters(tmp_path, other, words):
    """Intervals reach one point to either side."""
    params = params_with(
        main={"task": "multimnist"}, control={"task": "multimnist", "iterations": 1}
    )
    metrics = {"main": measured(20.0), "control": measured(other)}
    text = "\n".join(comparisons.controls(params, metrics, tmp_path / "figures", tmp_path))
    for part in words.split("; "):
        assert part in text
    assert "](figures/controls_multimnist.png)" in text
    assert (tmp_path / "figures" / "controls_multimnist.png").is_file()


def test_without_controls_the_report_says_how_to_make_them(tmp_path):
    params = params_with(main={"task": "multimnist"}, cnn={"task": "mnist", "network": "baseline"})
    metrics = {"main": measured(20.0), "cnn": measured(1.0)}
    text = "\n".join(comparisons.controls(params, metrics, tmp_path, tmp_path))
    assert "dvc exp run -S '+runs.once=" in text and not list(tmp_path.iterdir())


def test_another_loss_is_another_comparison():
    params = params_with(
        main={"task": "mnist"}, without={"task": "mnist", "reconstruction_weight": 0.0}
    )
    metrics = {"main": measured(1.0), "without": measured(2.0)}
    table = comparisons.compare(params, metrics, "mnist")
    assert table["name"].tolist() == ["r = 3"] and table["paper"].tolist() == [0.25]
    assert comparisons.compare(params, metrics, "multimnist").empty


def test_one_way_with_agreement_only_names_the_best():
    columns = ["name", "iterations", "error", "error_low", "error_high", "paper"]
    rows = [["r = 3", 3, 2, 1, 3, math.nan], ["r = 5", 5, 1, 0, 2, math.nan]]
    sentence = comparisons.verdict(pd.DataFrame(rows, columns=columns))
    assert sentence == "The lowest error, 1.00 %, is that of r = 5."


def test_a_capsnet_leads_its_task():
    params = params_with(
        cnn={"task": "mnist", "network": "baseline"},
        first={"task": "mnist"},
        second={"task": "mnist", "iterations": 1},
        only={"task": "multimnist", "network": "baseline"},
    )
    assert leading_runs(params) == ["first", "only"]
