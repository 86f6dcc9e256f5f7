"""The report's tables and sentences, on metrics made up so that the words are known."""

import pandas as pd
import pytest

from capsnet.config import Run, load
from capsnet.report import comparisons, tables
from capsnet.report import rows as compared
from capsnet.studies.results import Results
from stages.report import leading_runs


def params_with(**runs: dict):
    """The repository's parameters with these runs, on MNIST whatever the chosen budget is."""
    params = load()
    budgets = {params.budget: params.budgets[params.budget].model_copy(update={"source": "mnist"})}
    settings = {name: Run(**{"network": "capsnet", **run}) for name, run in runs.items()}
    return params.model_copy(update={"budgets": budgets, "runs": settings})


def measured(error: float, *, right: list[int] = (), multiply_adds: float = 2e8) -> Results:
    headline = {"error": error, "error_low": error - 1, "error_high": error + 1}
    headline |= {"validation_error": error + 2, "images_per_second": 50.0}
    training = pd.DataFrame({"multiply_adds": [multiply_adds]})
    return Results("", headline, {"training": training, "examples": pd.DataFrame({"right": right})})


def test_the_paper_stands_beside_what_it_published():
    params = params_with(
        plain={"task": "mnist"},
        short={"task": "multimnist", "iterations": 1},
        without={"task": "mnist", "reconstruction_weight": 0.0},
        cnn={"task": "multimnist", "network": "baseline"},
        wide={"task": "mnist40"},
        recon={"task": "mnist", "reconstruction_weight": 0.01},
        control={"task": "mnist", "network": "convnet"},
    )
    found = {name: tables.published(params, name) for name in params.runs}
    expected = {"plain": "0.25 ± 0.005", "short": "7.5", "without": "0.35 ± 0.036"}
    assert found == expected | {"cnn": "8.1", "wide": None, "recon": None, "control": None}
    words = {name: tables.routing_of(params, name) for name in params.runs}
    assert words["short"] == "r = 1" and words["cnn"] == "-"


def test_seeds_become_a_row_with_its_t_interval():
    """1, 2 and 3 %: mean 2, standard deviation 1; t of two degrees of freedom is 4.303, so the mean
    is 2 +- 4.303 / sqrt(3)."""
    params = params_with(
        a={"task": "mnist", "seed": 1},
        other={"task": "multimnist"},
        b={"task": "mnist", "seed": 2},
        c={"task": "mnist", "seed": 3},
    )
    metrics = {name: measured(error) for name, error in zip("abc", (1.0, 2.0, 3.0), strict=True)}
    for results, value in zip(metrics.values(), (80.0, 81.0, 82.0), strict=True):
        table = {"measure": ["squared_error", "separation_accuracy"], "value": [1.0, value]}
        results.tables["separation"] = pd.DataFrame(table)
    rows = compared.rows_of(params, metrics | {"other": measured(20.0)})
    assert [len(row.runs) for row in rows] == [3, 1] and rows[0].name == "CapsNet, r = 3"
    low, high, of = compared.interval_of(rows[0])
    assert (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    assert of == "3 seeds" and compared.interval_of(rows[1]) == (19, 21, "examples")
    text = comparisons.rows_table(rows)
    assert (
        "| 3 | **2.00** ± 1.00 | -0.48 to 4.48 (3 seeds) | 4.00 | 81.00 ± 1.00 | 0.20 | 50 | 0.25"
        in text
    )


def test_rows_of_the_same_seeds_are_paired():
    """Differences of 1, 2 and 3 points: 2 +- 2.48, not sure; of 1.9, 2 and 2.1 sure, though the
    seeds themselves are 10 points apart."""
    for errors, sure in (([11, 22, 33], False), ([11.9, 22, 32.1], True)):
        first, second = (
            row_of("r = 3", [10, 20, 30]),
            row_of("r = 1", [1.0 * error for error in errors]),
        )
        found = compared.difference(first, second)
        assert found.value == pytest.approx(2) and found.sure == sure
        assert (found.low <= 0) != sure and found.of == "3 seeds, paired"
    assert str(found).startswith("r = 1: 2.00 points more errors than r = 3 (")
    assert not compared.difference(row_of("a", [1.0, 2.0]), row_of("b", [1.5, 2.5])).sure


def row_of(name: str, errors: list[float], right: list[int] = ()) -> compared.Row:
    runs = [measured(error, right=right) for error in errors]
    return compared.Row(name, "mnist", 100, runs, list(range(len(runs))), (), None)


def test_one_network_each_is_compared_on_the_examples_that_both_saw():
    """McNemar: of 20 examples that one alone has wrong, 15 to 5 has the exact p of 0.041 and 14 to
    6 that of 0.115, whatever the 80 others are."""
    for worse, sure in ((15, True), (14, False)):
        first = [0] * (20 - worse) + [1] * worse + [1] * 80
        second = [1] * (20 - worse) + [0] * worse + [1] * 80
        one, other = row_of("a", [0.0], first), row_of("b", [0.0], second)
        found = compared.difference(one, other)
        assert found.value == pytest.approx(worse - (20 - worse)) and found.sure == sure
        assert found.of == "one network each, the same 100 examples"
        assert found.low < found.value < found.high
        assert ("sure of these two networks, not of others" in str(found)) == sure
    assert compared.difference(one, row_of("c", [0.0], [1] * 99)) is None
    same = compared.difference(one, one)
    assert same.value == same.low == same.high == 0 and not same.sure


def test_only_rows_of_one_task_and_length_are_compared():
    params = params_with(
        main={"task": "multimnist"},
        long={"task": "multimnist", "examples": 999},
        digit={"task": "mnist"},
        once={"task": "multimnist", "iterations": 1},
        control={"task": "multimnist", "network": "convnet", "peak": 0.002},
    )
    results = {name: measured(20.0, right=[1, 0]) for name in params.runs}
    found = compared.differences(compared.rows_of(params, results))
    assert [(one.first, one.second) for _, one in found] == [
        ("CapsNet, r = 3", "CapsNet, r = 1"),
        ("CapsNet, r = 3", "ConvNet, peak 0.002"),
    ]


def test_a_costlier_network_is_compared_at_equal_computation_too():
    """Twice the multiply-adds for an image: half the images are as much; a third is not."""
    params = params_with(
        caps={"task": "multimnist", "examples": 600},
        same={"task": "multimnist", "examples": 600, "network": "baseline"},
        half={"task": "multimnist", "examples": 300, "network": "baseline"},
        third={"task": "multimnist", "examples": 200, "network": "baseline"},
    )
    costs = dict(caps=2e8, same=4e8, half=4e8, third=4e8)
    results = {
        name: measured(20.0, right=[1, 0], multiply_adds=cost) for name, cost in costs.items()
    }
    found = compared.differences(compared.rows_of(params, results))
    assert [(alike, one.first, one.second) for alike, one in found] == [
        ("600 images of multimnist", "CapsNet, r = 3", "baseline"),
        ("computation on multimnist, 300 images beside 600", "CapsNet, r = 3", "baseline"),
    ]


def test_the_report_compares_rows_where_there_are_several(tmp_path):
    params = params_with(main={"task": "multimnist"}, once={"task": "multimnist", "iterations": 1})
    metrics = {"main": measured(20.0, right=[1] * 9), "once": measured(25.0, right=[0] * 9)}
    text = "\n".join(comparisons.controls(params, metrics, tmp_path / "figures", tmp_path))
    assert "CapsNet, r = 1: 100.00 points more errors than CapsNet, r = 3" in text
    assert "](figures/controls_multimnist.png)" in text
    assert (tmp_path / "figures" / "controls_multimnist.png").is_file()


def test_without_controls_the_report_says_how_to_make_them(tmp_path):
    params = params_with(main={"task": "multimnist"}, cnn={"task": "mnist", "network": "baseline"})
    metrics = {"main": measured(20.0), "cnn": measured(1.0)}
    text = "\n".join(comparisons.controls(params, metrics, tmp_path, tmp_path))
    assert "dvc exp run -S '+runs.once=" in text and not list(tmp_path.iterdir())


def test_a_capsnet_leads_its_task():
    params = params_with(
        cnn={"task": "mnist", "network": "baseline"},
        first={"task": "mnist"},
        second={"task": "mnist", "iterations": 1},
        only={"task": "multimnist", "network": "baseline"},
    )
    assert leading_runs(params) == ["first", "only"]
