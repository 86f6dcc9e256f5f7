"""The configuration: params.yaml as validated models, and all that one run is made of, resolved."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from capsnet.nn.registry import NETWORKS
from capsnet.params import (
    Data,
    Evaluate,
    Exponential,
    Loss,
    OneCycle,
    Optimizer,
    Params,
    Perturb,
    Routing,
    Train,
)
from capsnet.validation import Section, line


def load(
    path: Path = Path("params.yaml"), override: Path | None = None, *, run: str | None = None
) -> Params:
    """Read and check the whole file. The sections of the file `override` replace its own; there a
    run may name its own budget, which is the chosen one if `run` is that run.

    Raises ValueError with one line per error.
    """
    found = read_yaml(path)
    if override is not None:
        load(path)
        own = read_yaml(override)
        if not isinstance(own, Mapping):
            raise ValueError(f"{override}: wanted sections")
        found, path = {**found, **own}, override
        runs = found.get("runs")
        settings = runs.get(run) if isinstance(runs, Mapping) else None
        if isinstance(settings, Mapping) and settings.get("budget") is not None:
            found["budget"] = settings["budget"]
    sections = found if isinstance(found, Mapping) else {}
    budgets = sections.get("budgets")
    context = {"budget": sections.get("budget"), "override": override is not None}
    context["budgets"] = list(budgets) if isinstance(budgets, Mapping) else []
    try:
        return Params.model_validate(found, context=context)
    except ValidationError as error:
        lines = [f"{path}: {line(one)}" for one in error.errors(include_url=False)]
        raise ValueError("\n".join(lines)) from None


def read_yaml(path: Path) -> object:
    """Keys as text: YAML reads `1:` as a number and `on:` as true. Raises ValueError if the file
    is missing or is not YAML.
    """
    try:
        return with_text_keys(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run from the repository root") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def with_text_keys(found: object) -> object:
    if not isinstance(found, Mapping):
        return found
    return {str(key): with_text_keys(value) for key, value in found.items()}


class RunTask(Section):
    """What a network is shown, at the chosen budget."""

    name: str
    num_digits: int  # in an image
    image_size: int  # pixels, both sides
    training_shift: int  # pixels, of each digit in each direction, at most
    test_shift: int
    training_examples: int  # images shown
    batch_size: int  # in training
    test_examples: int | None  # None: each test digit once


class RunConfig(Section):
    """All that one run is made of; MLflow logs it, flattened. The parts are as in params.yaml."""

    name: str
    budget: str
    source: str  # of the digits: "mnist" or "scikit-learn"
    seed: int
    network: str  # key of NETWORKS
    arguments: dict[str, object]  # keyword arguments of its class
    stop_at_error: float | None  # percent, on validation digits
    study_examples: int  # test examples behind each table but the headlines
    perturb_examples: int  # of each class
    task: RunTask
    data: Data
    routing: Routing
    loss: Loss
    optimizer: Optimizer
    learning_rate: OneCycle | Exponential
    train: Train
    evaluate: Evaluate
    perturb: Perturb


def resolve(params: Params, run: str) -> RunConfig:
    """The sections of params.yaml with what the chosen budget and this run set for themselves in
    their places. Raises ValueError for a run that is not in params.yaml.
    """
    if run not in params.runs:
        raise ValueError(f"got the run {run!r}, wanted one of {', '.join(params.runs)}")
    own, budget = params.runs[run], params.budgets[params.budget]
    task = params.tasks[own.task]
    routing = updated(params.routing, iterations=own.iterations)
    loss = updated(params.loss, reconstruction_weight=own.reconstruction_weight)
    numbers = updated(params.network, **budget.network.model_dump()).model_dump()
    numbers |= {"image_size": task.image_size, "num_digits": task.digits}
    numbers |= {"num_iterations": routing.iterations, **routing.model_dump()}
    if loss.reconstruction_weight == 0:
        numbers["decoder_sizes"] = None
    return RunConfig(
        name=run,
        budget=params.budget,
        source=budget.source,
        seed=params.seed if own.seed is None else own.seed,
        network=own.network,
        arguments={name: numbers[name] for name in NETWORKS[own.network].arguments},
        stop_at_error=own.stop_at_error,
        study_examples=budget.study_examples,
        perturb_examples=budget.perturb_examples,
        task=RunTask(
            name=own.task,
            num_digits=task.digits,
            image_size=task.image_size,
            training_shift=task.training_shift,
            test_shift=task.test_shift,
            training_examples=own.examples or task.training_examples[params.budget],
            batch_size=task.batch_size[params.budget],
            test_examples=None if task.digits == 1 else budget.test_pairs,
        ),
        data=updated(params.data, validation_fraction=own.validation_fraction),
        routing=routing,
        loss=loss,
        optimizer=updated(params.optimizer, **budget.optimizer.model_dump()),
        learning_rate=updated(budget.learning_rate, peak=own.peak),
        train=params.train,
        evaluate=params.evaluate,
        perturb=params.perturb,
    )


def updated(section: Section, **values: object) -> Section:
    """A copy with those of the values that are not None."""
    return section.model_copy(update={k: v for k, v in values.items() if v is not None})
