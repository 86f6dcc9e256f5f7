"""What one run is made of: the sections of params.yaml with the numbers of its task, of the chosen
budget and its own in their places.
"""

from typing import NamedTuple

from capsnet.params import Params


class TaskNumbers(NamedTuple):
    """What a run's task is made of at the chosen budget."""

    num_digits: int  # in an image
    image_size: int  # pixels
    training_shift: int  # pixels, each digit in each direction
    test_shift: int
    training_examples: int
    batch_size: int  # in training
    test_examples: int | None  # None: each test digit once


def task_of(params: Params, run: str) -> TaskNumbers:
    """The task of one run, with its numbers at the chosen budget."""
    section = params.tasks[params.runs[run].task]
    return TaskNumbers(
        num_digits=section.digits,
        image_size=section.image_size,
        training_shift=section.training_shift,
        test_shift=section.test_shift,
        training_examples=params.runs[run].examples or section.training_examples[params.budget],
        batch_size=section.batch_size[params.budget],
        test_examples=None if section.digits == 1 else params.chosen_budget.test_pairs,
    )


def params_of(params: Params, run: str) -> Params:
    """The parameters with what the chosen budget and this run set for themselves in their places.

    Raises ValueError for a name that is not among the runs.
    """
    if run not in params.runs:
        raise ValueError(f"got the run {run!r}, wanted one of {', '.join(params.runs)}")
    own = params.runs[run].model_dump(exclude_none=True)
    sizes, adam = (
        section.model_dump(exclude_unset=True)
        for section in (params.chosen_budget.network, params.chosen_budget.optimizer)
    )
    routing = {key: own[key] for key in ("iterations",) if key in own}
    loss = {key: own[key] for key in ("reconstruction_weight",) if key in own}
    data = {key: own[key] for key in ("validation_fraction",) if key in own}
    peak = {key: own[key] for key in ("peak",) if key in own}
    rate = params.chosen_budget.learning_rate.model_copy(update=peak)
    budget = params.chosen_budget.model_copy(update={"learning_rate": rate})
    changes = {
        "seed": own.get("seed", params.seed),
        "budgets": {**params.budgets, params.budget: budget},
        "data": params.data.model_copy(update=data),
        "network": params.network.model_copy(update=sizes),
        "optimizer": params.optimizer.model_copy(update=adam),
        "routing": params.routing.model_copy(update=routing),
        "loss": params.loss.model_copy(update=loss),
    }
    return params.model_copy(update=changes)


def used_parameters(params: Params, run: str) -> dict[str, object]:
    """What this run is made of: the run and its task stand in for all runs and tasks."""
    used = params_of(params, run).model_dump(exclude={"runs", "tasks"}, exclude_unset=True)
    own = params.runs[run].model_dump(include={"task", "network", "stop_at_error"})
    used["run"] = {"name": run} | {key: value for key, value in own.items() if value is not None}
    return used | {"task": task_of(params, run)._asdict()}
