"""The resolved configuration of one run."""

from collections.abc import Mapping

from capsnet.config.params import Exponential, OneCycle, Params, Sections
from capsnet.config.section import Section
from capsnet.nn.registry import NETWORKS


class RunTask(Section):
    """The images of a run."""

    name: str
    num_digits: int  # in an image
    image_size: int  # pixels, both sides
    training_shift: int  # pixels, maximum in each direction
    test_shift: int
    training_examples: int  # images shown
    batch_size: int  # in training
    test_examples: int | None  # None: every test digit once


class RunConfig(Sections):
    """Everything that one run needs."""

    name: str
    budget: str
    source: str  # the data set, a key of DATA_SETS
    seed: int
    network: str  # key of NETWORKS
    arguments: dict[str, object]  # keyword arguments of its class
    stop_at_error: float | None  # percent, on validation digits
    study_examples: int  # test examples for each table but the headlines
    perturb_examples: int  # test digits of each class
    task: RunTask
    learning_rate: OneCycle | Exponential

    @property
    def title(self) -> str:
        """The run in figures and reports, with its data set if it is not MNIST."""
        return self.name if self.source == "mnist" else f"{self.name} ({self.source})"

    def parameters(self) -> dict[str, object]:
        """The numbers by which runs differ, flat, under the same names at every budget."""
        found = {
            "task": self.task.name,
            "network": self.network,
            "budget": self.budget,
            "data": self.source,
            "seed": self.seed,
            "examples": self.task.training_examples,
            "batch_size": self.task.batch_size,
            "learning_rate": self.learning_rate.peak,
            "learning_rate_schedule": self.learning_rate.schedule,
            "reconstruction_weight": self.loss.reconstruction_weight,
            "validation_fraction": self.data.validation_fraction,
            "training_digits": self.data.training_digits,
            "augment": self.data.augment,
            "image_size": self.task.image_size,
        }
        if NETWORKS[self.network].routes:
            routing = self.routing.model_dump(exclude={"implementation"})
            found |= {f"routing.{name}": value for name, value in routing.items()}
        sizes = ("conv_channels", "primary_types", "class_dim")
        return found | {name: self.arguments[name] for name in sizes if name in self.arguments}

    def logged(self) -> dict[str, object]:
        """What `capsnet.tracking.track` logs of the configuration."""
        return {"parameters": self.parameters(), "configuration": self.model_dump(mode="json")}


def resolve(params: Params, run: str) -> RunConfig:
    """Replace values of the sections by those of the chosen budget, and those by the run's own,
    which have the same names.

    Raises ValueError for an unknown run.
    """
    if run not in params.runs:
        raise ValueError(f"got the run {run!r}, wanted one of {', '.join(params.runs)}")
    own, budget = params.runs[run], params.budgets[params.budget]
    task = params.tasks[own.task]
    peak, batch_size = None, task.batch_size[params.budget]
    examples = task.training_examples[params.budget]
    if NETWORKS[own.network].compact:
        peak, batch_size = budget.compact.peak, budget.compact.batch_size
        examples = budget.compact.training_examples.get(own.task, own.examples)
    changed = own.model_dump(exclude_none=True)
    routing, loss = updated(params.routing, changed), updated(params.loss, changed)
    numbers = params.network.model_dump(exclude_none=True)
    numbers |= budget.network.model_dump(exclude_none=True)
    numbers |= {"image_size": task.image_size, "num_digits": task.digits}
    numbers |= {"num_iterations": routing.iterations, **routing.model_dump()}
    if loss.reconstruction_weight == 0:
        numbers["decoder_sizes"] = None
    return RunConfig(
        name=run,
        budget=params.budget,
        source=params.source,
        seed=params.seed if own.seed is None else own.seed,
        network=own.network,
        arguments={n: numbers[n] for n in NETWORKS[own.network].arguments if n in numbers},
        stop_at_error=own.stop_at_error,
        study_examples=budget.study_examples,
        perturb_examples=budget.perturb_examples,
        task=RunTask(
            **task.model_dump(include={"image_size", "training_shift", "test_shift"}),
            name=own.task,
            num_digits=task.digits,
            training_examples=own.examples or examples,
            batch_size=own.batch_size or batch_size,
            test_examples=None if task.digits == 1 else budget.test_pairs,
        ),
        data=updated(params.data, changed),
        routing=routing,
        loss=loss,
        optimizer=updated(params.optimizer, budget.optimizer.model_dump() | changed),
        learning_rate=updated(budget.learning_rate, {"peak": peak} | changed),
        **{name: getattr(params, name) for name in ("train", "evaluate", "perturb")},
    )


def updated(section: Section, values: Mapping[str, object]) -> Section:
    """A copy with those values that are not None and have the name of one of its fields."""
    known = {k: v for k, v in values.items() if v is not None and k in type(section).model_fields}
    return section.model_copy(update=known)
