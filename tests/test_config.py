"""params.yaml: an error is one line with its path; a run is resolved to its own numbers."""

import copy
import math
import operator
import re
from functools import reduce
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from hypothesis import given, settings, strategies
from stages.recipe import losses_of, schedule

from capsnet.config import load, resolve
from capsnet.nn.registry import network_class

ROOT = Path(__file__).parent.parent
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())
DELETE = object()
RATE = "budgets/laptop/learning_rate"
CNN = {"task": "mnist", "network": "baseline"}


def load_changed(tmp_path, changes: dict[str, object]):
    """Load the repository's params.yaml at budget laptop with some values changed."""
    tree = copy.deepcopy(TREE) | {"budget": "laptop"}
    for place, value in changes.items():
        *sections, key = place.split("/")
        section = reduce(operator.getitem, sections, tree)
        section[key] = value
        if value is DELETE:
            del section[key]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return load(path)


def lines_of(tmp_path, changes: dict[str, object]) -> list[str]:
    with pytest.raises(ValueError) as error:
        load_changed(tmp_path, changes)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{tmp_path}/params.yaml: ") for line in lines)
    return [line.removeprefix(f"{tmp_path}/params.yaml: ") for line in lines]


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("routing/iterations", 0, "routing.iterations: got 0, wanted a whole number of at least 1"),
        ("routing/iterations", 2.5, "routing.iterations: got 2.5, wanted a whole number"),
        ("routing/leaky", 1, "routing.leaky: got 1, wanted true or false"),
        ("routing/leaky", DELETE, "routing.leaky: missing"),
        ("routing/coupling", 1, "routing.coupling: unknown key, allowed are iterations, leaky, "),
        ("routing/gradient", "none", "routing.gradient: got the text 'none', wanted 'all' or"),
        ("speed", 1, "speed: unknown key, allowed are seed, budget, budgets, tasks, runs"),
        ("seed", None, "seed: got nothing, wanted a whole number"),
        ("tasks", DELETE, "tasks: missing"),
        ("loss/down_weight", -1, "loss.down_weight: got -1, wanted a number of at least 0"),
        ("loss/down_weight", math.inf, "loss.down_weight: got inf, wanted a finite number"),
        ("network/decoder_sizes", [], "network.decoder_sizes: got [], wanted at least one entry"),
        ("network/decoder_sizes", [8, "x"], "network.decoder_sizes[1]: got the text 'x', wanted"),
        ("budget", "desktop", "budget: got the text 'desktop', wanted one of quick, laptop, "),
        ("budgets/laptop/network", {"layers": 3}, "budgets.laptop.network.layers: unknown key"),
        (f"{RATE}/peak", "1e-3", "budgets.laptop.learning_rate.peak: got the text '1e-3', wanted "
         "a number; YAML reads 1e-3 as text, write 0.001"),
        (f"{RATE}/floor", 0.9, "budgets.laptop.learning_rate.floor: higher than its peak"),
        (f"{RATE}/schedule", "step", "budgets.laptop.learning_rate.schedule: got the text 'step', "
         "wanted one_cycle or exponential"),
        (RATE, None, "budgets.laptop.learning_rate.schedule: got nothing, wanted one_cycle or exp"),
        ("tasks/mnist/test_shift", 15, "tasks.mnist.test_shift: got 15, wanted at most 14, half"),
        ("tasks/mnist/batch_size/laptop", DELETE, "tasks.mnist.batch_size.laptop: missing, and ru"),
        ("runs", {}, "runs: got {}, wanted at least one entry"),
        ("runs/mnist", "mnist", "runs.mnist: got the text 'mnist', wanted the keys task, network"),
        ("runs/mnist/shift", 2, "runs.mnist.shift: unknown key, allowed are task, network, seed"),
        ("runs/mnist/task", "cifar", "runs.mnist.task: got the text 'cifar', wanted one of mnist,"),
        ("runs/mnist/network", "resnet", "runs.mnist.network: got the text 'resnet', wanted "
         "'capsnet', 'convnet' or 'baseline'"),
        ("runs/my run", CNN, "runs.my run: got the text 'my run', wanted letters, digits and _"),
        ("runs/cnn", CNN | {"iterations": 1}, "runs.cnn.iterations: a baseline does not route"),
        ("runs/cnn", CNN | {"reconstruction_weight": 0.1}, "runs.cnn.reconstruction_weight: a bas"),
        ("runs/cnn", CNN | {"stop_at_error": 1, "validation_fraction": 0}, "runs.cnn.stop_at_erro"),
        ("perturb/step", 0.04, "perturb.step: got 0.04, wanted a whole fraction of perturb.range"),
        ("train/cuda_graph", "on", "train.cuda_graph: got the text 'on', wanted 'auto' or 'off'"),
        ("runs/cnn", CNN | {"budget": "paper"}, "runs.cnn.budget: only in an override file"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_with_its_path(tmp_path, place, value, expected):
    (line,) = lines_of(tmp_path, {place: value})
    assert line.startswith(expected)


def test_several_errors_are_several_lines_those_of_other_budgets_are_none(tmp_path):
    """DVC does not track other budgets either, so no check runs again when they change."""
    others = {"budgets/paper/test_pairs": "many", "tasks/mnist/batch_size/paper": 0}
    assert load_changed(tmp_path, others).budget == "laptop"
    routing = {"iterations": 0, "leaky": 1, "speed": 2}  # gradient and implementation are missing
    changes = {"budget": "desktop", "seed": -1, "routing": routing}
    assert len(lines_of(tmp_path, changes | others)) == 7


def test_a_missing_or_broken_file(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(ValueError, match="is missing"):
        load(path)
    for text, words in (("a: [1", "is not YAML"), ("", "the file: got nothing")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            load(path)


def test_what_yaml_does_not_read_as_text(tmp_path):
    """`1:` is a number, `on:` is true, `off` is false."""
    assert load_changed(tmp_path, {"train/cuda_graph": False}).train.cuda_graph == "off"
    assert resolve(load_changed(tmp_path, {"runs": {1: CNN}}), "1").network == "baseline"
    (line,) = lines_of(tmp_path, {"routing": TREE["routing"] | {True: 1}})
    assert line.startswith("routing.True: unknown key")


def test_an_override_replaces_sections_and_its_runs_may_have_their_own_budget(tmp_path):
    """The schedule, batch size and pairs of such a run are of its budget."""
    path, study = tmp_path / "params.yaml", tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(TREE))
    run = {"task": "multimnist", "network": "capsnet"}
    runs = {"short": run, "long": run | {"budget": "paper"}}
    study.write_text(yaml.safe_dump({"budget": "night", "runs": runs}))
    short, long = (resolve(load(path, study, run=name), name) for name in runs)
    assert (short.budget, long.budget) == ("night", "paper")
    assert long.task.batch_size == 128 != short.task.batch_size
    study.write_text(yaml.safe_dump({"runs": {"long": run | {"budget": "desktop"}}}))
    with pytest.raises(ValueError, match=r"study.yaml: budget: got the text 'desktop', wanted one"):
        load(path, study, run="long")
    study.write_text("runs")
    with pytest.raises(ValueError, match=r"study.yaml: wanted sections"):
        load(path, study)


def test_the_runs_of_the_committed_results(tmp_path):
    params = load_changed(tmp_path, {"runs/wide": {"task": "mnist40", "network": "capsnet"}})
    tasks = [tuple(resolve(params, run).task.model_dump().values()) for run in params.runs]
    assert tasks[-3:] == [
        ("mnist", 1, 28, 2, 0, 110_000, 32, None),
        ("multimnist", 2, 36, 4, 4, 104_000, 16, 10_000),
        ("mnist40", 1, 40, 6, 6, 60_000, 32, None),
    ]
    mnist = resolve(params, "mnist")
    assert (mnist.seed, mnist.budget, mnist.source) == (TREE["seed"], "laptop", "mnist")
    expected = TREE["network"] | {"decoder_sizes": (*TREE["network"]["decoder_sizes"],)}
    expected |= {key: TREE["routing"][key] for key in ("leaky", "gradient")}
    expected |= {"image_size": 28, "num_iterations": TREE["routing"]["iterations"]}
    del expected["dropout"]
    assert mnist.arguments == expected
    with pytest.raises(ValueError, match="got the run 'yours', wanted one of mnist, multimnist"):
        resolve(params, "yours")


def test_a_run_sets_its_own_numbers_and_no_other_runs(tmp_path):
    own = {"seed": 7, "iterations": 1, "reconstruction_weight": 0, "examples": 77, "peak": 0.01}
    own |= {"validation_fraction": 0, "task": "mnist", "network": "capsnet"}
    params = load_changed(tmp_path, {"runs/mine": own})
    assert resolve(params, "mnist") == resolve(load_changed(tmp_path, {}), "mnist")
    found = resolve(params, "mine")
    assert (found.seed, found.task.training_examples, found.learning_rate.peak) == (7, 77, 0.01)
    assert (found.loss.reconstruction_weight, found.data.validation_fraction) == (0, 0)
    assert found.routing.iterations == found.arguments["num_iterations"] == 1
    assert found.arguments["decoder_sizes"] is None


def test_a_budget_sets_its_own_numbers(tmp_path):
    changes = {"budgets/laptop/optimizer": {"beta2": 0.9}, "runs/cnn": CNN}
    changes |= {"budgets/laptop/network": {"conv_channels": 16, "dropout": 0.1}}
    params = load_changed(tmp_path, changes)
    mnist, cnn = resolve(params, "mnist"), resolve(params, "cnn")
    assert (mnist.optimizer.beta1, mnist.optimizer.beta2) == (0.9, 0.9)
    assert (mnist.arguments["conv_channels"], mnist.arguments["primary_types"]) == (16, 32)
    assert cnn.arguments == {"image_size": 28, "num_digits": 1, "dropout": 0.1}


def test_schedules_are_chosen_by_name(tmp_path):
    """One cycle reaches its peak within 10 % of the steps; at step 2,000 the paper's is x 0.96."""
    laptop, paper = (
        schedule(resolve(load_changed(tmp_path, {"budget": budget}), "mnist"), num_steps=20_000)
        for budget in ("laptop", "paper")
    )
    assert (laptop(2000), paper(2000)) == pytest.approx((0.0015, 0.00096))


def test_a_new_task_is_one_entry(tmp_path):
    """A task that no run has may lack the chosen budget; that of a run may not."""
    numbers = {"digits": 1, "image_size": 64, "training_shift": 18, "test_shift": 18}
    numbers |= {"training_examples": {"laptop": 500}, "batch_size": {"laptop": 16}}
    task, run = {"tasks/mnist64": numbers}, {"runs/far": CNN | {"task": "mnist64"}}
    far = resolve(load_changed(tmp_path, task | run), "far")
    assert (far.task.image_size, far.task.training_examples, far.task.batch_size) == (64, 500, 16)
    quick = {"budget": "quick"}
    missing = lines_of(tmp_path, task | run | quick)
    assert [line.split(":")[0].split(".")[2] for line in missing] == [*list(numbers)[-2:]]
    assert "mnist64" in load_changed(tmp_path, task | quick).tasks


def places(node: object, above: tuple = ()):
    for key, value in node.items() if isinstance(node, dict) else ():
        yield (*above, key)
        yield from places(value, (*above, key))


ODD = [None, True, 0, -1, 3, 2.5, 1e-9, 10**30, math.nan, math.inf, "x", "1e-3", "", [], [1],
       ["a", 2], {}, {"x": 1}, {1: 2}, {None: 1}, "2026", "capsnet", "{x}"]  # fmt: skip


@given(data=strategies.data())
@settings(max_examples=150, deadline=None)
def test_any_one_change_runs_or_is_an_error_with_its_path(data):
    """What is accepted can be built (without memory), called, and has a rate at each step."""
    pick = lambda values: data.draw(strategies.sampled_from([*values]))  # noqa: E731
    changed = copy.deepcopy(TREE | {"budget": pick(TREE["budgets"])})
    *sections, key = pick(places(TREE))
    section = reduce(operator.getitem, sections, changed)
    match pick(["remove", "add", "set", "set", "set"]):
        case "remove":
            del section[key]
        case "add":
            section[pick([f"{key}x", 3, True, ""])] = section[key]
        case "set":
            section[key] = pick(ODD)
    path = ROOT / "params.yaml"
    with patch.object(yaml, "safe_load", lambda text: changed):  # reading it is most of the time
        try:
            params = load(path)
        except ValueError as error:
            line = re.compile(rf"{re.escape(str(path))}: [^ :]+: [a-z]")
            assert all(line.match(each) for each in str(error).splitlines()), str(error)
            return
    for config in (resolve(params, run) for run in params.runs):
        with torch.device("meta"):
            model = network_class(config.network)(**config.arguments)
            prediction = model(torch.empty(2, 1, *2 * [config.task.image_size]))
            if model.decoder:
                labels = torch.empty(2, config.task.num_digits, dtype=torch.int64)
                model.decoder(prediction.capsules, labels)
        assert losses_of(config)
        assert all(0 <= schedule(config, num_steps=10)(step) <= 1 for step in range(10))
