"""Rows of runs and their differences, on made-up errors."""

import pandas as pd
import pytest

from capsnet.config import Run, load, resolve
from capsnet.studies.results import Results, read_table
from capsnet.studies.seeds.describe import answer, paper_markdown, rows_markdown, sentences
from capsnet.studies.seeds.measure import differences, holm, published, records, row_table

RANGES = ["0 to 20 %", "20 to 40 %", "40 to 60 %"]
CAPSNET = {"task": "multimnist", "network": "capsnet", "examples": 1000}


def configs(**runs: dict):
    """Of these runs at the chosen budget, with MNIST's digits."""
    params = load()
    budget = params.budgets[params.budget].model_copy(update={"source": "mnist"})
    settings = {name: Run(**{**CAPSNET, **run}) for name, run in runs.items()}
    update = {"budgets": {params.budget: budget}, "runs": settings}
    return {name: resolve(params.model_copy(update=update), name) for name in runs}


def results(name: str, error: float, *, right=None, multiply_adds=2e8, accuracy=80.0) -> Results:
    headline = {"test_error": error, "test_error_low": error - 1, "test_error_high": error + 1}
    headline |= {"validation_error": error + 2, "images_per_second": 50.0}
    errors = {"group": "overlap", "name": RANGES, "error": [error, error + 2, 40]}
    errors |= {"error_low": 1, "error_high": 99, "examples": [900, 500, 7]}
    separation = {"measure": "separation_accuracy", "name": ["all", *RANGES]}
    separation |= {"value": [accuracy, 90, 80, 70], "low": 60, "high": 99}
    right = [0] * int(error) + [1] * (100 - int(error)) if right is None else right
    tables = {
        "training": {"multiply_adds": [multiply_adds]},
        "errors": errors,
        "separation": separation | {"examples": [1407, 900, 500, 7]},
        "examples": {"right": right},
    }
    record = {"commit": "abc", "examples": 1000, "seconds": 60.0}
    return Results(name, headline, {k: pd.DataFrame(v) for k, v in tables.items()}, record)


def two_rows(errors: list[float], other: list[float]) -> pd.DataFrame:
    """Records of r = 3 with these errors by seed, and of r = 1 with the others."""
    runs = {f"r3_{seed}": {"seed": seed} for seed in range(len(errors))}
    runs |= {f"r1_{seed}": {"seed": seed, "iterations": 1} for seed in range(len(other))}
    found = zip(runs, [*errors, *other], strict=True)
    return records(configs(**runs), {name: results(name, error) for name, error in found})


def test_the_paper_has_its_networks_only():
    found = configs(
        plain={"task": "mnist"},
        once={"iterations": 1},
        no_recon={"task": "mnist", "reconstruction_weight": 0.0},
        cnn={"network": "baseline"},
        recon={"task": "mnist", "reconstruction_weight": 0.01},
        wide={"task": "mnist40"},
        convnet={"task": "mnist", "network": "convnet"},
    )
    errors = [published(config)[0] for config in found.values()]
    assert errors[:4] == [0.25, 7.5, 0.35, 8.1] and pd.isna(errors[4:]).all()


def test_seeds_become_a_row_with_its_t_interval():
    """1, 2 and 3 %: mean 2, standard deviation 1. t with two degrees of freedom is 4.303, so the
    interval is 2 +- 4.303 / sqrt(3). A run alone keeps Wilson's interval."""
    runs = {name: {"seed": seed} for seed, name in enumerate("abc")}
    runs["cnn"] = {"network": "baseline"}
    numbers = zip(runs, (1.0, 2.0, 3.0, 20.0), (80.0, 81.0, 82.0, 50.0), strict=True)
    measured = {name: results(name, error, accuracy=value) for name, error, value in numbers}
    three, one = row_table(records(configs(**runs), measured)).itertuples()
    assert (three.name, three.networks, one.networks) == ("CapsNet, r = 3", 3, 1)
    assert (three.test_error, three.test_error_sd, three.separation) == pytest.approx((2, 1, 81))
    half = 4.3027 / 3**0.5
    assert (three.low, three.high) == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert (one.low, one.high) == (19, 21) and pd.isna(one.test_error_sd)


def test_rows_of_the_same_seeds_are_paired():
    """Differences of 1, 2 and 3 points are 2 +- 2.48: not significant. 1.9, 2 and 2.1 are, although
    the seeds are 10 points apart. Equal differences say nothing about other seeds."""
    for errors, significant in (([11, 22, 33], False), ([11.9, 22, 32.1], True)):
        [found] = differences(two_rows([10.0, 20.0, 30.0], errors)).itertuples()
        assert found.points == pytest.approx(2) and found.ratio == pytest.approx(1.1)
        assert found.significant == significant and (found.low <= 0) != significant
        assert found.seeds == 3 and found.paper_ratio == pytest.approx(7.5 / 5.2)
    assert not differences(two_rows([1.0, 2.0], [1.5, 2.5])).loc[0, "significant"]


def test_p_values_are_adjusted_for_their_number():
    """The smallest of four times 4, the next times 3, ..., none below the one before it."""
    adjusted = holm(pd.Series([0.04, 0.01, 0.03, 0.6]))
    assert list(adjusted.sort_index()) == pytest.approx([0.09, 0.04, 0.09, 0.6])


def test_routing_matters_if_a_difference_of_several_seeds_is_significant():
    """Whether agreement raises or lowers the error; one network each decides nothing."""
    base = [10.0, 20.0, 30.0]
    for errors, significant in (([11.9, 22, 32.1], 1), ([8.1, 18, 27.9], 1), ([11, 22, 33], 0)):
        found = next(answer(differences(two_rows(base, errors))))
        assert found.startswith(("**No difference was found.**", "**Yes.**")[significant])
    assert len([*answer(differences(two_rows([10.0], [20.0])))]) == 1


def test_one_network_each_is_compared_on_the_examples():
    """McNemar: of 20 examples that only one network has wrong, 15 to 5 has the exact p of 0.041 and
    14 to 6 that of 0.115, whatever the other 80 are."""
    both = configs(a={}, b={"iterations": 1})
    for worse, significant in ((15, True), (14, False)):
        one = [0] * (20 - worse) + [1] * (worse + 80)
        other = [1] * (20 - worse) + [0] * worse + [1] * 80
        measured = {"a": results("a", 0.0, right=one), "b": results("b", 0.0, right=other)}
        [found] = differences(records(both, measured)).itertuples()
        assert found.points == pytest.approx(2 * worse - 20) and found.significant == significant
        assert (found.seeds, found.examples) == (0, 100) and found.low < found.points < found.high


def test_rows_are_compared_at_equal_length_or_equal_computation():
    """Twice the multiply-adds for an image: half the images are as much, a third is not."""
    runs = {"caps": {"examples": 600}, "long": {"examples": 999}, "digit": {"task": "mnist"}}
    lengths = {"same": 600, "half": 300, "third": 200}
    runs |= {name: {"network": "baseline", "examples": n} for name, n in lengths.items()}
    runs["slow"] = {"network": "convnet", "examples": 600, "peak": 0.002}
    costs = {name: 4e8 if name in lengths else 2e8 for name in runs}
    measured = {name: results(name, 20.0, multiply_adds=cost) for name, cost in costs.items()}
    found = differences(records(configs(**runs), measured))
    images = "600 images of multimnist"
    computation = "multiply-adds on multimnist, 300 against 600 images"
    assert found["held_fixed"].tolist() == [images, images, computation]
    assert found["name"].tolist() == ["baseline CNN", "ConvNet, peak 0.002", "baseline CNN"]
    assert set(found["baseline"]) == {"CapsNet, r = 3"}


def test_tables_and_sentences_have_the_numbers():
    """31 +- 1 against 33.83 +- 1.04: the differences 3, 3 and 2.5 are 2.83 +- 0.72."""
    runs = two_rows([30.0, 32.0, 31.0], [33.0, 35.0, 33.5])
    cells = [cell.strip() for cell in rows_markdown(runs).splitlines()[2].split("|")]
    assert cells[4:8] == ["3", "31.00 ± 1.00", "28.52 to 33.48", "33.00"]
    held_fixed, sentence = sentences(differences(runs))
    assert held_fixed == "Held fixed: 1,000 images of multimnist. Baseline: CapsNet, r = 3."
    assert "raises the error by 2.83 points (ratio 1.09; in the paper 1.44)" in sentence
    assert "+2.12 to +3.55, 3 seeds, paired: significant." in sentence
    table = paper_markdown(runs)
    assert "31.00 ± 1.00 (n = 3, 1,000 images)" in table and table.count("not run") == 6


def test_names_of_classes_stay_text(tmp_path):
    (path := tmp_path / "confusion.csv").write_text("label,prediction,count\n01,NA,3\nNone,01,\n")
    table = read_table(path)
    assert [*table["label"]] == ["01", "None"] and [*table["prediction"]] == ["NA", "01"]
    assert pd.isna(table["count"][1])
