"""params.yaml as frozen dataclasses: every key is checked before anything runs.

Of the budgets only the chosen one is checked: the others are not used, and DVC does not look at
them. A wrong file stops with one line for each mistake: the path in the file, what was found, what
is allowed.
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml


class Range(NamedTuple):
    """Allowed values from `low` to `high`, both included."""

    low: float
    high: float


Positive = Range(1, 10**12)
Share = Range(0, 1)


@dataclass(frozen=True)
class OneCycle:
    schedule: Literal["one_cycle"]
    peak: Annotated[float, Range(0, 1)]
    warmup: Annotated[float, Range(0, 0.9)]
    floor: Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Exponential:
    schedule: Literal["exponential"]
    peak: Annotated[float, Range(0, 1)]
    factor: Annotated[float, Range(0, 1)]
    every: Annotated[int, Positive]
    floor: Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class TrainingExamples:
    mnist: Annotated[int, Positive]
    mnist40: Annotated[int, Positive]
    multimnist: Annotated[int, Positive]


@dataclass(frozen=True)
class BatchSize:
    mnist: Annotated[int, Range(1, 65536)]
    mnist40: Annotated[int, Range(1, 65536)]
    multimnist: Annotated[int, Range(1, 65536)]


@dataclass(frozen=True)
class Budget:
    source: Literal["mnist", "scikit-learn"]
    training_examples: TrainingExamples
    batch_size: BatchSize
    learning_rate: OneCycle | Exponential
    test_pairs: Annotated[int, Positive]
    study_examples: Annotated[int, Positive]
    perturb_examples: Annotated[int, Range(1, 10000)]


@dataclass(frozen=True)
class Run:
    """One training; what is None is as in the sections of the same name for all runs."""

    task: Literal["mnist", "mnist40", "multimnist"]
    network: Literal["capsnet", "baseline"]
    seed: Annotated[int, Range(0, 2**63 - 1)] | None = None
    iterations: Annotated[int, Range(1, 100)] | None = None
    coupling: Literal["agreement", "uniform", "random"] | None = None
    reconstruction_weight: Annotated[float, Range(0, 100)] | None = None


@dataclass(frozen=True)
class Data:
    mirrors: tuple[str, ...]
    affnist: str | None
    validation_fraction: Annotated[float, Range(0, 0.5)]


@dataclass(frozen=True)
class Augment:
    mnist_shift: Annotated[int, Range(0, 14)]
    mnist40_shift: Annotated[int, Range(0, 14)]
    multimnist_shift: Annotated[int, Range(0, 14)]


@dataclass(frozen=True)
class Network:
    conv_channels: Annotated[int, Range(1, 4096)]
    kernel_size: Annotated[int, Range(1, 14)]
    primary_types: Annotated[int, Range(1, 1024)]
    primary_dim: Annotated[int, Range(1, 256)]
    primary_scale: Annotated[float, Range(0.000001, 1000)]
    digit_dim: Annotated[int, Range(1, 256)]
    decoder_sizes: tuple[Annotated[int, Range(1, 65536)], ...]
    weight_std: Annotated[float, Range(0.000001, 10)]
    dropout: Annotated[float, Range(0, 0.99)]


@dataclass(frozen=True)
class Routing:
    iterations: Annotated[int, Range(1, 100)]
    bias: bool
    coupling: Literal["agreement", "uniform", "random"]
    leaky: bool
    gradient: Literal["all", "last"]


@dataclass(frozen=True)
class Loss:
    positive_margin: Annotated[float, Share]
    negative_margin: Annotated[float, Share]
    down_weight: Annotated[float, Range(0, 100)]
    reconstruction_weight: Annotated[float, Range(0, 100)]


@dataclass(frozen=True)
class Optimizer:
    beta1: Annotated[float, Range(0, 0.999999)]
    beta2: Annotated[float, Range(0, 0.999999)]
    epsilon: Annotated[float, Range(0, 1)]
    precision: Literal["auto", "float32", "bfloat16"]
    intervals: Annotated[int, Range(1, 10000)]


@dataclass(frozen=True)
class Evaluate:
    seed: Annotated[int, Range(0, 2**63 - 1)]
    batch_size: Annotated[int, Range(1, 65536)]
    mnist40_shift: Annotated[int, Range(0, 14)]
    multimnist_shift: Annotated[int, Range(0, 14)]
    affine_degrees: Annotated[float, Range(0, 180)]
    affine_translate: Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Perturb:
    range: Annotated[float, Range(0.0001, 10)]
    step: Annotated[float, Range(0.0001, 10)]


@dataclass(frozen=True)
class Params:
    seed: Annotated[int, Range(0, 2**63 - 1)]
    budget: str
    budgets: dict[str, Budget]
    runs: dict[str, Run]
    data: Data
    augment: Augment
    network: Network
    routing: Routing
    loss: Loss
    optimizer: Optimizer
    evaluate: Evaluate
    perturb: Perturb

    @property
    def chosen_budget(self) -> Budget:
        return self.budgets[self.budget]


class Task(NamedTuple):
    """What a task is made of: digits in an image, image size in pixels, shifts in training and
    test.
    """

    num_digits: int
    image_size: int
    training_shift: int
    test_shift: int
    training_examples: int
    batch_size: int  # in training
    test_examples: int | None  # None: each test digit once


SHAPES = {"mnist": (1, 28), "mnist40": (1, 40), "multimnist": (2, 36)}  # digits, image size


def task_of(params: Params, run: str) -> Task:
    """The task of one run, with its numbers drawn together from the sections of params.yaml."""
    name, budget = params.runs[run].task, params.chosen_budget
    num_digits, image_size = SHAPES[name]
    return Task(
        num_digits=num_digits,
        image_size=image_size,
        training_shift=getattr(params.augment, f"{name}_shift"),
        test_shift=0 if name == "mnist" else getattr(params.evaluate, f"{name}_shift"),
        training_examples=getattr(budget.training_examples, name),
        batch_size=getattr(budget.batch_size, name),
        test_examples=None if num_digits == 1 else budget.test_pairs,
    )


def params_of(params: Params, run: str) -> Params:
    """The parameters with what this run sets for itself in their places.

    Raises ValueError for a name that is not among the runs.
    """
    if run not in params.runs:
        raise ValueError(f"got the run {run!r}, wanted one of {', '.join(params.runs)}")
    own = {key: value for key, value in vars(params.runs[run]).items() if value is not None}
    routing = {key: own[key] for key in ("iterations", "coupling") if key in own}
    loss = {key: own[key] for key in ("reconstruction_weight",) if key in own}
    return dataclasses.replace(
        params,
        seed=own.get("seed", params.seed),
        routing=dataclasses.replace(params.routing, **routing),
        loss=dataclasses.replace(params.loss, **loss),
    )


def used_parameters(params: Params, run: str) -> dict[str, object]:
    """What this run is made of: the run itself stands in for all runs."""
    everything = dataclasses.asdict(params_of(params, run))
    task, network = params.runs[run].task, params.runs[run].network
    del everything["runs"]
    return {**everything, "run": {"name": run, "task": task, "network": network}}


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file. Raises ValueError with one line per mistake."""
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run from the repository root") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    mistakes: list[str] = []
    if isinstance(found, Mapping) and isinstance(found.get("budgets"), Mapping):
        found = {**found, "budgets": _chosen_budget(found, mistakes)}
    params = _build(Params, found, "", mistakes)
    if not mistakes:
        mistakes += _contradictions(params)
    if mistakes:
        raise ValueError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return params


def _chosen_budget(found: Mapping, mistakes: list[str]) -> dict:
    """The entry of `budgets` that `budget` names, alone; a mistake if it names none."""
    name, budgets = found.get("budget"), found["budgets"]
    if isinstance(name, str) and name in budgets:
        return {name: budgets[name]}
    if isinstance(name, str):
        mistakes.append(f"budget: got {name!r}, wanted one of {', '.join(map(str, budgets))}")
    return {}


def _contradictions(params: Params) -> list[str]:
    """What is wrong only between two values that are each allowed."""
    mistakes = []
    if not params.runs:
        mistakes.append("runs: got none, wanted at least one")
    for run in params.runs:
        if not (run.isascii() and run.replace("_", "").isalnum()):
            mistakes.append(f"runs.{run}: a name is letters, digits and _ (it becomes a file name)")
    for name, budget in params.budgets.items():
        if budget.learning_rate.floor > budget.learning_rate.peak:
            mistakes.append(f"budgets.{name}.learning_rate.floor: higher than its peak")
    mistakes += [
        f"runs.{name}: a baseline has no capsules, so no iterations, coupling or reconstruction"
        for name, run in params.runs.items()
        if run.network == "baseline"
        and (run.iterations, run.coupling, run.reconstruction_weight) != (None, None, None)
    ]
    steps = params.perturb.range / params.perturb.step
    if abs(steps - round(steps)) > 1e-6:
        mistakes.append(
            f"perturb.step: got {params.perturb.step}, wanted a whole fraction of perturb.range "
            f"{params.perturb.range}, so that the centre column is the unperturbed digit"
        )
    return mistakes


def _build(wanted: Any, found: Any, path: str, mistakes: list[str]) -> Any:
    """Turn a YAML value into the wanted type; note what does not fit."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return _in_range(arguments[0], found, arguments[1], path, mistakes)
    if origin is Literal:
        if isinstance(found, str) and found in arguments:
            return found
        mistakes.append(f"{path}: got {_show(found)}, wanted {' or '.join(arguments)}")
    elif type(None) in arguments:
        return None if found is None else _build(arguments[0], found, path, mistakes)
    elif origin in (Union, types.UnionType):
        return _build_schedule(arguments, found, path, mistakes)
    elif origin is dict:
        if isinstance(found, Mapping):
            return {
                str(k): _build(arguments[1], v, _join(path, k), mistakes) for k, v in found.items()
            }
        mistakes.append(f"{path}: got {_show(found)}, wanted names with a section each")
    elif origin is tuple:
        if isinstance(found, list) and found:
            return tuple(
                _build(arguments[0], v, f"{path}[{n}]", mistakes) for n, v in enumerate(found)
            )
        mistakes.append(f"{path}: got {_show(found)}, wanted a list [..., ...] of at least one")
    elif dataclasses.is_dataclass(wanted):
        return _build_section(wanted, found, path, mistakes)
    elif type(found) is wanted:
        return found
    else:
        mistakes.append(f"{path}: got {_show(found)}, wanted {_WORDS[wanted]}")
    return None


def _build_section(wanted: type, found: Any, path: str, mistakes: list[str]) -> Any:
    fields = get_type_hints(wanted, include_extras=True)
    if not isinstance(found, Mapping):
        mistakes.append(
            f"{path or 'the file'}: got {_show(found)}, wanted the keys {', '.join(fields)}"
        )
        return None
    for key in found:
        if key not in fields:
            mistakes.append(f"{_join(path, key)}: unknown key, allowed are {', '.join(fields)}")
    values = {}
    for key, field in fields.items():
        if key in found:
            values[key] = _build(field, found[key], _join(path, key), mistakes)
        elif hasattr(wanted, key):  # a default
            values[key] = getattr(wanted, key)
        else:
            mistakes.append(f"{_join(path, key)}: missing")
    return wanted(**values) if len(values) == len(fields) else None


def _build_schedule(choices: tuple[type, ...], found: Any, path: str, mistakes: list[str]) -> Any:
    by_name = {get_args(get_type_hints(choice)["schedule"])[0]: choice for choice in choices}
    name = found.get("schedule") if isinstance(found, Mapping) else None
    if isinstance(name, str) and name in by_name:
        return _build_section(by_name[name], found, path, mistakes)
    mistakes.append(f"{path}.schedule: got {_show(name)}, wanted {' or '.join(by_name)}")
    return None


def _in_range(wanted: type, found: Any, allowed: Range, path: str, mistakes: list[str]) -> Any:
    number = float(found) if wanted is float and type(found) is int else found
    if type(number) is wanted and allowed.low <= number <= allowed.high:
        return number
    hint = ""
    if wanted is float and isinstance(found, str) and _is_finite(found):
        hint = f"; YAML reads {found} as text, write {float(found):.12f}".rstrip("0")
    mistakes.append(
        f"{path}: got {_show(found)}, wanted {_WORDS[wanted]} "
        f"from {allowed.low:,} to {allowed.high:,}{hint}"
    )
    return None


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _show(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, bool):
        return str(value).lower()
    return "nothing" if value is None else repr(value)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
