"""params.yaml: each mistake is one line with its path, what was found, what is allowed."""

import copy
import math
import re
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from hypothesis import given, settings, strategies

from capsnet.networks import network_class
from capsnet.params import OneCycle, load_params
from capsnet.runs import params_of, task_of, used_parameters
from stages.train import network_arguments, schedule

ROOT = Path(__file__).parent.parent
DELETE = object()


def load_changed(tmp_path, place: str, value: object):
    """Load the repository's params.yaml with one value changed (whatever a user has changed
    before).
    """
    tree = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"budget": "laptop"}
    *sections, key = place.split("/")
    section = tree
    for name in sections:
        section = section[name]
    if value is DELETE:
        del section[key]
    else:
        section[key] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return load_params(path)


def test_the_file_in_the_repository_is_sound():
    params = load_params(ROOT / "params.yaml")
    assert {"mnist", "multimnist"} <= set(params.runs)
    for run in params.runs:
        assert task_of(params, run).training_examples > 0


RATE = "budgets/laptop/learning_rate"


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("routing/iterations", 0, "routing.iterations: got 0, wanted a whole number of at least 1"),
        ("routing/iterations", 2.5, "routing.iterations: got 2.5, wanted a whole number"),
        ("routing/iterations", True, "routing.iterations: got true, wanted a whole number"),
        ("routing/leaky", 1, "routing.leaky: got 1, wanted true or false"),
        ("routing/leeky", True, "routing.leeky: unknown key, allowed are iterations, leaky"),
        ("routing/leaky", DELETE, "routing.leaky: missing"),
        ("speed", 1, "speed: unknown key"),
        ("seed", None, "seed: got nothing, wanted a whole number"),
        (f"{RATE}/peak", "1e-3", "learning_rate.peak: got the text '1e-3', wanted a number"),
        (f"{RATE}/peak", "1e-3", "YAML reads 1e-3 as text, write 0.001"),
        (f"{RATE}/floor", 0.9, "budgets.laptop.learning_rate.floor: higher than its peak"),
        (f"{RATE}/schedule", ["step"], "learning_rate.schedule: got ['step']"),
        ("routing/gradient", ["all"], "routing.gradient: got ['all'], wanted 'all' or 'last'"),
        (f"{RATE}/schedule", "step", "learning_rate.schedule: got the text 'step'"),
        ("routing/coupling", "uniform", "routing.coupling: unknown key, allowed are iterations"),
        ("budget", "desktop", "budget: got the text 'desktop', wanted one of quick, laptop, "),
        ("perturb/step", 0.04, "perturb.step: got 0.04, wanted a whole fraction"),
        ("network/decoder_sizes", [], "network.decoder_sizes: got []"),
        ("network/decoder_sizes", [512, "x"], "network.decoder_sizes[1]: got the text 'x'"),
        ("network/dropout", float("nan"), "network.dropout: got nan"),
        (
            "runs/mnist/task",
            "cifar",
            "runs.mnist.task: got the text 'cifar', wanted one of mnist, mnist40",
        ),
        ("runs/mnist", "mnist", "runs.mnist: got the text 'mnist', wanted the keys"),
        (
            "runs/my run",
            {"task": "mnist", "network": "capsnet"},
            "runs.my run: got the text 'my run', wanted letters, digits",
        ),
        ("runs", {}, "runs: got {}, wanted at least one"),
        ("runs/mnist/iterations", 0, "runs.mnist.iterations: got 0, wanted a whole number of at"),
        (
            "runs/mnist/network",
            "resnet",
            "runs.mnist.network: got the text 'resnet', wanted 'capsnet', 'convnet' or 'baseline'",
        ),
        ("runs/mnist/coupling", "uniform", "runs.mnist.coupling: unknown key, allowed are task"),
        ("runs/mnist/shift", 2, "runs.mnist.shift: unknown key, allowed are task, network, seed"),
        (
            "runs/cnn",
            {"task": "mnist", "network": "convnet", "iterations": 1},
            "runs.cnn.iterations: a convnet does not route",
        ),
        (
            "runs/cnn",
            {"task": "mnist", "network": "baseline", "reconstruction_weight": 0.1},
            "runs.cnn.reconstruction_weight: a baseline does not reconstruct",
        ),
        (
            "runs/short",
            {"task": "mnist", "network": "capsnet", "stop_at_error": 1, "validation_fraction": 0},
            "runs.short.stop_at_error: there are no validation digits to look at",
        ),
        (
            "launcher",
            "mpirun -n 2",
            "launcher: got the text 'mpirun -n 2', wanted python, or torch",
        ),
        ("data/affnist", 1, "data.affnist: got 1, wanted text"),
        ("data/mirrors", [], "data.mirrors: got [], wanted at least one entry"),
        ("augment", {"mnist_shift": 2}, "augment: unknown key, allowed are seed, budget"),
        ("tasks/mnist/digits", 3, "tasks.mnist.digits: got 3, wanted a whole number of at most 2"),
        ("tasks/mnist/image_size", 20, "tasks.mnist.image_size: got 20, wanted a whole number"),
        ("tasks/mnist/training_examples/laptop", 0, "training_examples.laptop: got 0, wanted"),
        ("tasks/mnist/batch_size/laptop", DELETE, "tasks.mnist.batch_size.laptop: missing"),
        (
            "tasks/mnist/batch_size",
            "many",
            "batch_size: got the text 'many', wanted names with a v",
        ),
        ("tasks/mnist/test_shift", 15, "tasks.mnist.test_shift: got 15, wanted at most 14, half"),
        ("tasks/my.task", {}, "tasks.my.task.digits: missing"),
        ("tasks", "mnist", "tasks: got the text 'mnist', wanted names with a value each"),
        ("tasks", DELETE, "tasks: missing"),
        (RATE, None, "learning_rate.schedule: got nothing, wanted one_cycle or exponent"),
        ("routing/1", 2, "routing.1: unknown key"),
        ("budgets/laptop/network", {"primary_types": 0}, "laptop.network.primary_types: got 0"),
        ("budgets/laptop/network", {"layers": 3}, "laptop.network.layers: unknown key, allowed"),
        ("loss/down_weight", float("inf"), "loss.down_weight: got inf, wanted a finite number"),
    ],
)
def test_a_mistake_is_named(tmp_path, place, value, expected):
    with pytest.raises(ValueError) as error:
        load_changed(tmp_path, place, value)
    assert expected in str(error.value) and "params.yaml: " in str(error.value)


def test_a_whole_number_will_do_where_a_number_is_wanted(tmp_path):
    assert load_changed(tmp_path, "network/weight_std", 1).network.weight_std == 1.0


def test_a_missing_or_broken_file(tmp_path):
    with pytest.raises(ValueError, match="is missing"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="is not YAML"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(ValueError, match="the file: got nothing"):
        load_params(tmp_path / "params.yaml")


def test_the_tasks_differ_in_numbers_only():
    params = load_params(ROOT / "params.yaml")
    mnist, multimnist = task_of(params, "mnist"), task_of(params, "multimnist")
    assert (mnist.num_digits, mnist.image_size, mnist.training_shift, mnist.test_shift) == (
        1,
        28,
        2,
        0,
    )
    assert multimnist[:4] == (2, 36, 4, 4)


def test_a_digit_of_mnist40_is_anywhere_on_its_canvas(tmp_path):
    """28 px of digit and 6 px on either side: shifts of up to 6 reach every place on 40 px."""
    params = load_changed(tmp_path, "runs/wide", {"task": "mnist40", "network": "capsnet"})
    assert task_of(params, "wide")[:4] == (1, 40, 6, 6)


def test_a_run_may_set_its_own_routing_loss_and_seed(tmp_path):
    own = {"seed": 7, "iterations": 1, "reconstruction_weight": 0}
    params = load_changed(tmp_path, "runs/mine", {"task": "mnist", "network": "capsnet", **own})
    mine = params_of(params, "mine")
    found = mine.seed, mine.routing.iterations, mine.loss.reconstruction_weight
    assert found == (7, 1, 0.0)
    assert mine.routing.leaky == params.routing.leaky
    other = params_of(params, "mnist")
    assert (other.seed, other.routing, other.loss) == (params.seed, params.routing, params.loss)
    assert used_parameters(params, "mine")["routing"]["iterations"] == 1
    with pytest.raises(ValueError, match="got the run 'yours', wanted one of mnist, multimnist"):
        params_of(params, "yours")


def test_used_parameters_name_one_budget_and_one_run():
    used = used_parameters(load_params(ROOT / "params.yaml"), "multimnist")
    assert list(used["budgets"]) == [used["budget"]]
    assert used["run"] == {"name": "multimnist", "task": "multimnist", "network": "capsnet"}
    assert used["routing"]["iterations"] >= 1


@pytest.mark.parametrize("budget", ["quick", "laptop", "paper"])
def test_every_budget_is_sound(tmp_path, budget):
    params = load_changed(tmp_path, "budget", budget)
    assert list(params.budgets) == [budget]
    assert all(task_of(params, run).batch_size > 0 for run in params.runs)


def test_a_study_of_other_digits_than_were_downloaded_stops(tmp_path):
    """Else what is left of the quick budget would train on scikit-learn's, as if on MNIST."""
    tree, also = yaml.safe_load((ROOT / "params.yaml").read_text()), tmp_path / "study.yaml"
    for root, of_study, said in (("quick", "laptop", True), ("laptop", "night", False)):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree | {"budget": root}))
        also.write_text(yaml.safe_dump({"budget": of_study}))
        if said:
            with pytest.raises(ValueError, match="laptop wants digits of mnist, but at budget"):
                load_params(tmp_path / "params.yaml", also)
            assert load_params(tmp_path / "params.yaml", also, same_digits=False)
        else:
            assert load_params(tmp_path / "params.yaml", also).budget == of_study


def test_a_budget_and_a_run_may_have_their_own_numbers(tmp_path):
    params = load_changed(tmp_path, "budgets/laptop/optimizer", {"beta2": 0.99})
    assert params_of(params, "mnist").optimizer.beta2 == 0.99 and params.optimizer.beta2 == 0.999
    own = {"task": "mnist", "network": "capsnet", "peak": 0.01, "examples": 77, "iterations": 1}
    params = load_changed(tmp_path, "runs/mnist", own)
    mine = params_of(params, "mnist")
    assert mine.chosen_budget.learning_rate.peak == 0.01 and mine.routing.iterations == 1
    assert task_of(params, "mnist").training_examples == 77
    assert params_of(params, "multimnist").chosen_budget == params.chosen_budget
    all_digits = {"task": "mnist", "network": "capsnet", "validation_fraction": 0}
    params = load_changed(tmp_path, "runs/mnist", all_digits)
    assert params_of(params, "mnist").data.validation_fraction == 0
    assert params_of(params, "multimnist").data == params.data
    params = load_changed(tmp_path, "budgets/laptop/network", {"conv_channels": 16})
    mine = params_of(params, "mnist").network
    assert mine.conv_channels == 16 and mine.primary_types == params.network.primary_types
    assert used_parameters(params, "mnist")["network"]["conv_channels"] == 16


def test_several_mistakes_are_several_lines(tmp_path):
    with pytest.raises(ValueError) as error:
        load_changed(tmp_path, "routing", {"iterations": 0, "leaky": 1, "speed": 2})
    assert len(str(error.value).splitlines()) == 5  # and gradient and implementation are missing
    assert "Traceback" not in str(error.value)


def places(node: object, above: tuple = ()):
    for key, value in node.items() if isinstance(node, dict) else ():
        yield (*above, key)
        yield from places(value, (*above, key))


TREE = yaml.safe_load((ROOT / "params.yaml").read_text())
ODD = [None, True, 0, -1, 3, 2.5, 1e-9, 10**30, math.nan, math.inf, -math.inf, "x", "1e-3", "",
       [], [1], [-1], ["a", 2], {}, {"x": 1}, {1: 2}, {None: 1}, "2026", "capsnet"]  # fmt: skip


@given(data=strategies.data())
@settings(max_examples=200, deadline=None)
def test_any_one_change_runs_or_is_told_in_lines(data):
    """A key taken away, another put beside it, or an odd value: it stops with the place in the
    file, or networks can be built and called (without memory) and every step has a learning rate.
    """
    changed = copy.deepcopy(
        TREE | {"budget": data.draw(strategies.sampled_from([*TREE["budgets"]]))}
    )
    *sections, key = data.draw(strategies.sampled_from(list(places(TREE))))
    section = changed
    for name in sections:
        section = section[name]
    match data.draw(strategies.sampled_from(["remove", "add", "set", "set", "set"])):
        case "remove":
            del section[key]
        case "add":
            section[data.draw(strategies.sampled_from([f"{key}x", 3, True, ""]))] = section[key]
        case "set":
            section[key] = data.draw(strategies.sampled_from(ODD))
    path = ROOT / "params.yaml"
    said = re.compile(rf"{re.escape(str(path))}: [^ :]+: [a-z]")
    with patch.object(yaml, "safe_load", lambda text: changed):  # reading it is most of the time
        try:
            params = load_params(path)
        except ValueError as error:
            assert all(said.match(line) for line in str(error).splitlines()), str(error)
            return
    for run in params.runs:
        call_on_meta(params_of(params, run), run)


def call_on_meta(params, run):
    network, task = params.runs[run].network, task_of(params, run)
    with torch.device("meta"):
        model = network_class(network)(**network_arguments(params, network, task))
        prediction = model(torch.empty(2, 1, task.image_size, task.image_size))
        if model.decoder:
            labels = torch.empty(2, task.num_digits, dtype=torch.int64)
            model.decoder(prediction.capsules, labels)
    rate = schedule(params.chosen_budget, num_steps=10)
    assert all(0 <= rate(step) <= 1 for step in range(10))


def test_keys_that_yaml_reads_as_no_text(tmp_path):
    """`1: ...` is a number and `on: ...` is true; as names they are text."""
    assert "1" in load_changed(tmp_path, "runs", {1: {"task": "mnist", "network": "capsnet"}}).runs
    with pytest.raises(ValueError, match=r"routing\.True: unknown key, allowed are iterations"):
        load_changed(tmp_path, "routing", {True: 1})


def test_an_unknown_budget_is_told_with_the_other_mistakes_and_without_those_of_other_budgets(
    tmp_path,
):
    path = tmp_path / "params.yaml"
    tree = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"budget": "desktop", "seed": -1}
    tree["budgets"]["paper"]["test_pairs"] = "many"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError) as error:
        load_params(path)
    seed, budget = str(error.value).splitlines()
    assert "budget: got the text 'desktop', wanted one of" in budget and "seed: got -1" in seed


def test_a_new_task_is_one_entry(tmp_path):
    """A canvas of 64 px leaves 18 px on either side of a digit: any place on it."""
    numbers = {"training_examples": {"laptop": 500}, "batch_size": {"laptop": 16}}
    numbers |= {"digits": 1, "image_size": 64, "training_shift": 18, "test_shift": 18}
    tree = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"budget": "laptop"}
    tree["tasks"]["mnist64"] = numbers
    tree["runs"]["far"] = {"task": "mnist64", "network": "baseline"}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert task_of(load_params(path), "far") == (1, 64, 18, 18, 500, 16, None)
    path.write_text(yaml.safe_dump(tree | {"budget": "quick"}))
    with pytest.raises(ValueError) as error:
        load_params(path)
    missing, more = str(error.value).splitlines()
    assert "tasks.mnist64.training_examples.quick: missing, and runs of this task" in missing
    assert "tasks.mnist64.batch_size.quick: missing" in more
    del tree["runs"]["far"]  # a task that no run has may lack the budget
    path.write_text(yaml.safe_dump(tree | {"budget": "quick"}))
    assert "mnist64" in load_params(path).tasks


def test_the_laptop_budget_is_what_its_committed_results_were_made_with(tmp_path):
    params = load_changed(tmp_path, "runs/wide", {"task": "mnist40", "network": "capsnet"})
    assert task_of(params, "mnist") == (1, 28, 2, 0, 110_000, 32, None)
    assert task_of(params, "wide") == (1, 40, 6, 6, 60_000, 32, None)
    assert task_of(params, "multimnist") == (2, 36, 4, 4, 104_000, 16, 10_000)


def test_schedules_are_chosen_by_name(tmp_path):
    quick = load_changed(tmp_path, "budget", "quick").chosen_budget
    assert isinstance(quick.learning_rate, OneCycle)
    assert load_changed(tmp_path, "budget", "paper").chosen_budget.learning_rate.factor == 0.96


def test_a_mistake_in_a_budget_that_is_not_chosen_stops_nothing(tmp_path):
    """DVC does not look at it either, so no check would run before old results are deleted."""
    assert load_changed(tmp_path, "budgets/paper/test_pairs", "many").budget == "laptop"
    place = "tasks/mnist/batch_size/paper"
    assert load_changed(tmp_path, place, "many").budget == "laptop"
