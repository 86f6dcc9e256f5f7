"""The report of a study, on results made up so that the words are known."""

import pandas as pd

from capsnet.config import Run, load
from capsnet.report.study import study, table_1
from capsnet.studies.results import Results

BUDGET = load().budget
RANGES = ["0 to 20 %", "20 to 40 %", "40 to 60 %"]


def results(name: str, error: float) -> Results:
    headline = {"error": error, "error_low": error - 1, "error_high": error + 1}
    headline |= {"validation_error": error, "images_per_second": 40.0}
    errors = {"group": "overlap", "name": RANGES, "error": [error, error + 2, 40]}
    errors |= {"error_low": 1, "error_high": 99, "examples": [900, 500, 7]}
    apart = {"measure": "separation_accuracy", "name": ["all", *RANGES], "value": [80, 90, 80, 70]}
    apart |= {"low": 60, "high": 99, "examples": [1407, 900, 500, 7]}
    tables = {
        "training": pd.DataFrame({"multiply_adds": [5.5e8]}),
        "errors": pd.DataFrame(errors),
        "separation": pd.DataFrame(apart),
        "examples": pd.DataFrame({"right": [0] * int(error) + [1] * (100 - int(error))}),
    }
    return Results(name, headline, tables)


def params_with_runs(override=None):
    alike = {"task": "multimnist", "network": "capsnet", "examples": 1000}
    runs = {f"r3_seed{seed}": {**alike, "seed": seed} for seed in (1, 2, 3)}
    runs |= {f"r1_seed{seed}": {**alike, "iterations": 1, "seed": seed} for seed in (1, 2, 3)}
    runs |= {"long": {**alike, "examples": 4000}, "control": {**alike, "network": "convnet"}}
    runs |= {"later": {**alike, "network": "baseline"}}
    params = load(override=override)
    budget = params.budgets[params.budget].model_copy(update={"source": "mnist"})
    settings = {name: Run(**run) for name, run in runs.items()}
    return params.model_copy(update={"runs": settings, "budgets": {params.budget: budget}})


def test_the_study_reports_what_is_done_and_names_what_is_not(tmp_path):
    errors = dict(r3_seed1=30, r3_seed2=32, r3_seed3=31, r1_seed1=33, r1_seed2=35, r1_seed3=33.5)
    errors |= dict(long=22, control=36)
    measured = {name: results(name, float(error)) for name, error in errors.items()}
    text = "\n".join(study([(params_with_runs(), measured)], tmp_path / "figures", tmp_path))
    assert "8 of 9 networks are trained and tested. Not yet: later." in text
    assert "| 3 | **31.00** ± 1.00 | 28.52 to 33.48 (3 seeds) |" in text
    assert "CapsNet, r = 1: 2.83 points more errors than CapsNet, r = 3 (+2.12 to +3.55" in text
    assert "3 seeds, paired: sure), 1.09 times as many; in the paper 1.44 times." in text
    assert "shows 4,000 pairs, the paper's training set has 60,000,000" in text
    table = [line for line in text.splitlines() if line.startswith("| capsnet |")]
    assert (
        "| capsnet | r = 3 | yes | multimnist | 5.2 | 31.00 ± 1.00 (n = 3, 1,000 images) |" in table
    )
    assert (
        "| capsnet | r = 1 | yes | multimnist | 7.5 | 33.83 ± 1.04 (n = 3, 1,000 images) |" in table
    )
    assert sum("not run" in line for line in text.splitlines()) == 6
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {f"{name}_{BUDGET}.png" for name in ("length", "overlap", "pixels")}
    assert all(f"](figures/{name})" in text for name in drawn)


def test_a_study_of_nothing_yet(tmp_path):
    text = "\n".join(study([(params_with_runs(), {})], tmp_path, tmp_path))
    assert "0 of 9 networks" in text and "## Rows" not in text and not list(tmp_path.iterdir())
    assert table_1({"laptop": [], "paper": []}).count("not run") == 16


def test_each_budget_has_its_place_in_table_1_and_figures_where_there_is_something_to_compare(
    tmp_path,
):
    """However many networks of the other there are, or how much longer they were trained."""
    (tmp_path / "night.yaml").write_text("budget: night")
    short, long = params_with_runs(), params_with_runs(tmp_path / "night.yaml")
    errors = [{"r3_seed1": 30.0, "r3_seed2": 31.0, "r1_seed1": 33.0}, {"long": 5.0}]
    measured = [{name: results(name, error) for name, error in some.items()} for some in errors]
    series = list(zip((short, long), measured, strict=True))
    text = "\n".join(study(series, tmp_path / "figures", tmp_path))
    assert f"| paper % | here %, budget `{BUDGET}` | here %, budget `night` |" in text
    assert "30.50 ± 0.71 (n = 2, 1,000 images) | 5.00 (n = 1, 4,000 images) |" in text
    assert "33.00 (n = 1, 1,000 images) | not run |" in text
    names = ("length", "overlap", "pixels")
    drawn = {f"{name}_{BUDGET}.png" for name in names}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == drawn


def test_two_series_of_one_budget_are_both_reported(tmp_path):
    params = params_with_runs()
    errors = [{"r3_seed1": 30.0}, {"r1_seed1": 33.0}]
    series = [(params, {name: results(name, error) for name, error in e.items()}) for e in errors]
    text = "\n".join(study(series, tmp_path / "figures", tmp_path))
    assert "| 5.2 | 30.00 (n = 1, 1,000 images) |" in text
    assert "| 7.5 | 33.00 (n = 1, 1,000 images) |" in text
    assert "CapsNet, r = 1: 3.00 points more errors than CapsNet, r = 3" in text
