"""params.yaml: an error is one line with its path; a run is resolved to its own numbers."""

import copy
import math
import operator
import re
from functools import reduce
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import yaml
from dvc.utils.serialize import parse_yaml

from capsnet.config import Params, file, load, resolve
from capsnet.nn.registry import network_class
from stages.build import make_losses, make_schedule

PATH = Path(__file__).parent.parent / "params.yaml"
TREE = yaml.safe_load(PATH.read_text())
DELETE = object()
RATE = "budgets/laptop/learning_rate"
CNN = {"task": "mnist", "network": "baseline"}


def load_tree(tree: dict) -> Params:
    """Load without a file: parsing one takes most of the time."""
    with patch.object(file, "YAML", lambda typ: SimpleNamespace(load=lambda text: tree)):
        return load(PATH)


def load_changed(changes: dict[str, object]) -> Params:
    """Load the repository's params.yaml at budget laptop with some values changed."""
    tree = copy.deepcopy(TREE) | {"budget": "laptop"}
    for place, value in changes.items():
        *sections, key = place.split("/")
        section = reduce(operator.getitem, sections, tree)
        section[key] = value
        if value is DELETE:
            del section[key]
    return load_tree(tree)


def errors_of(changes: dict[str, object]) -> list[str]:
    with pytest.raises(ValueError) as error:
        load_changed(changes)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{PATH}: ") for line in lines)
    return [line.removeprefix(f"{PATH}: ") for line in lines]


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("routing/iterations", 0, "routing.iterations: got 0, wanted greater than or equal to 1"),
        ("routing/coupling", 1, "routing.coupling: unknown key, allowed are iterations, leaky, "),
        ("network/decoder_sizes", [8, "x"], "network.decoder_sizes.1: got 'x', wanted a valid int"),
        ("budget", "desktop", "budget: got 'desktop', wanted one of quick, laptop, night, gpu"),
        ("budgets/laptop/network", {"layers": 3}, "budgets.laptop.network.layers: unknown key"),
        (f"{RATE}/floor", 0.9, "budgets.laptop.learning_rate.floor: got 0.9, wanted at most 0.001"),
        (f"{RATE}/schedule", "step", "budgets.laptop.learning_rate: Input tag 'step' found using "),
        ("tasks/mnist/test_shift", 15, "tasks.mnist.test_shift: got 15, wanted at most 14, half"),
        ("tasks/mnist/batch_size/laptop", DELETE, "tasks.mnist.batch_size.laptop: missing, and a"),
        ("runs/mnist", "mnist", "runs.mnist: got 'mnist', wanted the keys task, network, seed"),
        ("runs/mnist/task", "cifar", "runs.mnist.task: got 'cifar', wanted one of mnist, mnist40"),
        ("runs/cnn", CNN | {"iterations": 1}, "runs.cnn.iterations: a baseline does not route"),
        ("runs/cnn", CNN | {"stop_at_error": 1, "validation_fraction": 0}, "runs.cnn.stop_at_erro"),
        ("runs/cnn", CNN | {"budget": "paper"}, "runs.cnn.budget: only an override file may set"),
        ("runs/cnn", CNN | {"claim": "digits"}, "runs.cnn.claim: only an override file may set it"),
        ("data/folder", "~/a", "data.folder: got '~/a', wanted the path of a folder"),
        ("perturb/step", 0.04, "perturb.step: got 0.04, wanted a whole fraction of perturb.range"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_with_its_path(place, value, expected):
    (line,) = errors_of({place: value})
    assert line.startswith(expected)


def test_each_error_is_a_line_and_other_budgets_are_not_checked():
    others = {"budgets/paper/test_pairs": "many", "tasks/mnist/batch_size/paper": 0}
    assert load_changed(others).budget == "laptop"
    routing = {"iterations": 0, "leaky": 1, "speed": 2}  # gradient and implementation are missing
    assert len(errors_of({"seed": -1, "routing": routing} | others)) == 6


@pytest.mark.parametrize(
        ("text", "words"),
    [(None, "is missing"), ("a: [1", "is not YAML: line 1: [^\n]*$"),
     ("a:\n\t- 1", "is not YAML: line 2: "), ("", "got None, wanted"),
     ("a: 1\na: 2", "is not YAML: .*duplicate key"), ("a: &a\n  b: *a", "is not YAML"),
     ("runs: {1: {}}", "runs: got the key 1, wanted text"),
     ("true: 1", "top level: got the key True"), ("a: {b: {2026-01-01: 1}}", "a.b: got the key")],
)  # fmt: skip
def test_a_missing_or_broken_file(tmp_path, text, words):
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "params.yaml")


def test_the_file_is_read_as_dvc_reads_it(tmp_path):
    """YAML 1.2: 2e-05 is a number, `off` is text, 0o17 is octal."""
    text = PATH.read_text().replace("cuda_graph: auto", "cuda_graph: off")
    text = text.replace("weight: 0.0005 ", "weight: 2e-05 ").replace("seed: 1  ", "seed: 0o17  ")
    (path := tmp_path / "params.yaml").write_text(text + "# Größe\n", encoding="utf-8")
    params = load(path)
    assert (params.loss.reconstruction_weight, params.train.cuda_graph) == (2e-05, "off")
    assert (params.seed, params.evaluate.seed) == (15, 15)
    words = "a: [no, 1:30, 0b11, 014, 1_000, 2026-01-01, .5, ~, '1', +1, 1e3]\nb: &b {x: y}\nc: *b"
    path.write_text(words)
    assert file.read_yaml(path) == parse_yaml(words, path)


def test_an_override_replaces_sections_and_its_runs_may_have_their_own_budget(tmp_path):
    """The batch size of such a run is of its budget."""
    study, run = tmp_path / "study.yaml", {"task": "multimnist", "network": "capsnet"}
    runs = {"short": run, "long": run | {"budget": "paper"}}
    study.write_text(yaml.safe_dump({"budget": "night", "runs": runs}))
    short, long = (resolve(load(PATH, study, run=name), name) for name in runs)
    assert (short.budget, short.task.batch_size) == ("night", 16)
    assert (long.budget, long.task.batch_size) == ("paper", 128)
    runs["long"]["budget"] = "quick"
    study.write_text(yaml.safe_dump({"budget": "night", "runs": runs}))
    with pytest.raises(ValueError, match="got one of scikit_learn, wanted a budget"):
        load(PATH, study, run="long")


def test_the_runs_of_the_committed_results():
    params = load_changed({"runs/wide": {"task": "mnist40", "network": "capsnet"}})
    tasks = [tuple(resolve(params, run).task.model_dump().values()) for run in params.runs]
    assert tasks == [
        ("mnist", 1, 28, 2, 0, 110_000, 32, None),
        ("multimnist", 2, 36, 4, 4, 1_200_000, 64, 10_000),
        ("mnist40", 1, 40, 6, 6, 60_000, 32, None),
    ]
    mnist = resolve(params, "mnist")
    expected = TREE["network"] | {"decoder_sizes": (*TREE["network"]["decoder_sizes"],)}
    expected |= {key: TREE["routing"][key] for key in ("leaky", "gradient")}
    expected |= {"image_size": 28, "num_iterations": TREE["routing"]["iterations"]}
    del expected["dropout"], expected["stem"]
    assert mnist.arguments == expected
    with pytest.raises(ValueError, match="got the run 'yours', wanted one of mnist, multimnist"):
        resolve(params, "yours")


def test_a_run_sets_its_own_numbers_and_no_other_runs():
    own = {"seed": 7, "iterations": 1, "reconstruction_weight": 0, "examples": 77, "peak": 0.01}
    own |= {"validation_fraction": 0, "task": "mnist", "network": "capsnet"}
    own |= {"training_digits": 100, "intervals": 3}
    params = load_changed({"runs/mine": own})
    assert resolve(params, "mnist") == resolve(load_changed({}), "mnist")
    found = resolve(params, "mine")
    assert (found.seed, found.task.training_examples, found.learning_rate.peak) == (7, 77, 0.01)
    assert (found.loss.reconstruction_weight, found.data.validation_fraction) == (0, 0)
    assert (found.data.training_digits, found.optimizer.intervals) == (100, 3)
    assert found.routing.iterations == found.arguments["num_iterations"] == 1
    assert found.arguments["decoder_sizes"] is None


def test_a_budget_sets_its_own_numbers():
    changes = {"budgets/laptop/optimizer": {"beta2": 0.9}, "runs/cnn": CNN}
    params = load_changed(changes | {"budgets/laptop/network": {"dropout": 0.1}})
    optimizer = resolve(params, "mnist").optimizer
    assert (optimizer.beta1, optimizer.beta2) == (0.9, 0.9)
    expected = {"image_size": 28, "num_digits": 1, "dropout": 0.1}
    assert resolve(params, "cnn").arguments == expected


def test_schedules_are_chosen_by_name():
    """One cycle reaches its peak within 10 % of the steps; at step 2,000 the paper's is x 0.96."""
    configs = (resolve(load_changed({"budget": name}), "mnist") for name in ("laptop", "paper"))
    laptop, paper = (make_schedule(config, num_steps=20_000) for config in configs)
    assert (laptop(2000), paper(2000)) == pytest.approx((0.0015, 0.00096))


def places(node: object, above: tuple = ()):
    for key, value in node.items() if isinstance(node, dict) else ():
        yield (*above, key)
        yield from places(value, (*above, key))


ODD = [DELETE, None, True, 0, -1, 3, 2.5, 1e-9, 10**30, math.nan, math.inf, "x", "1e-3", "", [],
       [1], ["a", 2], {}, {"x": 1}, {1: 2}, {None: 1}, "2026", "capsnet", "{x}"]  # fmt: skip


def test_any_one_change_runs_or_is_an_error_with_its_path():
    """What is accepted can be built (without memory), called, and has a rate at each step."""
    random, built = Random(0), set()
    for place in random.sample(["/".join(place) for place in places(TREE)], 100):
        place += random.choice(["", "", "x"])
        changes = {"budget": random.choice([*TREE["budgets"]]), place: random.choice(ODD)}
        try:
            params = load_changed(changes)
        except ValueError as error:
            line = re.compile(rf"{re.escape(str(PATH))}: [^ :]+: \w")
            assert all(line.match(each) for each in str(error).splitlines()), str(error)
            continue
        for config in (resolve(params, run) for run in params.runs):
            assert make_losses(config)
            assert all(0 <= make_schedule(config, num_steps=10)(step) <= 1 for step in range(10))
            if (arguments := str(config.arguments)) not in built:
                built.add(arguments)
                with torch.device("meta"):
                    model = network_class(config.network)(**config.arguments)
                    model(torch.empty(2, 1, *2 * [config.task.image_size]))


def test_runs_are_compared_by_the_same_parameters_at_every_budget():
    """The learning rate is the peak; a CNN has no routing."""
    tree = copy.deepcopy(TREE)
    tree["runs"]["cnn"] = CNN
    found = {
        budget: resolve(load_tree(tree | {"budget": budget}), "mnist").parameters()
        for budget in tree["budgets"]
    }
    assert len({tuple(parameters) for parameters in found.values()}) == 1
    assert {name: found["paper"][name] for name in ("learning_rate", "batch_size", "seed")} == {
        "learning_rate": 0.001, "batch_size": 128, "seed": 1}  # fmt: skip
    assert found["laptop"]["routing.iterations"] == 3
    baseline = resolve(load_tree(tree), "cnn").parameters()
    assert baseline["task"] == "mnist" and not [name for name in baseline if "routing" in name]


def test_the_study_refuses_another_data_set(tmp_path):
    """Its rows are records that do not track these keys."""
    tree = copy.deepcopy(TREE)
    tree["data"] |= {"dataset": "svhn", "balance": True}
    path, own = tmp_path / "params.yaml", {"budget": "laptop", "runs": {"one": CNN}}
    path.write_text(yaml.safe_dump(tree))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(own))
    assert load(path).source == "svhn"
    with pytest.raises(ValueError) as error:
        load(path, override=tmp_path / "study.yaml")
    assert "data.dataset: got 'svhn', the study wants None" in str(error.value)
    assert "data.balance: got True, the study wants False" in str(error.value)
