"""params.yaml as frozen pydantic models: every key is checked before anything runs.

Of the budgets only the chosen one is checked: the others are not used, and DVC does not track them.
An invalid file stops with one line per error (`capsnet.validation`).
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from capsnet.nn.registry import NETWORKS
from capsnet.validation import Section, between, invalid, matching, several, unwanted


def only_chosen(found: object, info: ValidationInfo) -> object:
    """Of entries by budget the one of the chosen budget, if it is there."""
    if not isinstance(found, Mapping):
        return found
    return {name: found[name] for name in found if name == info.context["budget"]}


def at_most_peak(floor: float, info: ValidationInfo) -> float:
    if floor > info.data.get("peak", floor):
        raise invalid("higher than its peak")
    return floor


def on_canvas(shift: int, info: ValidationInfo) -> int:
    half = info.data.get("image_size", 2 * shift) // 2
    if shift > half:
        raise unwanted(f"at most {half}, half of image_size: the digit's centre stays in it")
    return shift


Name = Annotated[str, matching(r"[A-Za-z0-9_]+", "letters, digits and _: it becomes a file name")]
Count = Annotated[int, between(1, 10**12)]
Share = Annotated[float, between(0, 1)]
Seed = Annotated[int, between(0, 2**63 - 1)]
Pixels = Annotated[int, between(0, 128), AfterValidator(on_canvas)]
Images = Annotated[int, between(1, 65536)]
Iterations = Annotated[int, between(1, 100)]
Fraction = Annotated[float, between(0, 0.5)]
Percent = Annotated[float, between(0, 100)]
Weight = Annotated[float, between(0, 100)]
Floor = Annotated[float, between(0, 1), AfterValidator(at_most_peak)]


class OneCycle(Section):
    schedule: Literal["one_cycle"]
    peak: Share
    warmup: Annotated[float, between(0, 0.9)]
    floor: Floor


class Exponential(Section):
    schedule: Literal["exponential"]
    peak: Share
    factor: Share
    every: Count
    floor: Floor


class Network(Section):
    conv_channels: Annotated[int, between(1, 4096)]
    kernel_size: Annotated[int, between(1, 14)]
    primary_types: Annotated[int, between(1, 1024)]
    primary_dim: Annotated[int, between(1, 256)]
    class_dim: Annotated[int, between(1, 256)]
    decoder_sizes: Annotated[tuple[Images, ...], Field(min_length=1, strict=False)]
    init: Literal["pytorch", "authors"]
    weight_std: Annotated[float, between(0.000001, 10)]
    dropout: Annotated[float, between(0, 0.99)]


class Optimizer(Section):
    beta1: Annotated[float, between(0, 0.999999)]
    beta2: Annotated[float, between(0, 0.999999)]
    epsilon: Share
    precision: Literal["auto", "float32", "bfloat16"]
    intervals: Annotated[int, between(1, 10000)]


def some_of(section: type[Section]) -> type[Section]:
    """The section with every key left to choice: what differs from it."""
    keys = {
        name: (field.rebuild_annotation(), None) for name, field in section.model_fields.items()
    }
    return create_model(f"Some{section.__name__}", __base__=Section, **keys)


SomeSizes, SomeOptimizer = some_of(Network), some_of(Optimizer)


class Budget(Section):
    source: Literal["mnist", "scikit-learn"]
    learning_rate: Annotated[OneCycle | Exponential, Field(discriminator="schedule")]
    test_pairs: Count
    study_examples: Count
    perturb_examples: Annotated[int, between(1, 10000)]
    network: SomeSizes  # what differs from the sections of the same names
    optimizer: SomeOptimizer


class Task(Section):
    digits: Annotated[int, between(1, 2)]  # in an image
    image_size: Annotated[int, between(28, 256)]
    training_shift: Pixels
    test_shift: Pixels
    training_examples: Annotated[dict[str, Count], BeforeValidator(only_chosen)]  # by budget
    batch_size: Annotated[dict[str, Images], BeforeValidator(only_chosen)]  # by budget


class Run(Section):
    """One training; what is None is as in the sections of the same name for all runs."""

    task: str
    network: Literal[tuple(NETWORKS)]
    seed: Seed | None = None
    examples: Count | None = None  # images shown in training
    peak: Share | None = None  # of the learning rate
    iterations: Iterations | None = None
    reconstruction_weight: Weight | None = None
    validation_fraction: Fraction | None = None  # of the training digits
    stop_at_error: Percent | None = None  # on validation digits: at the first row that reaches it
    budget: str | None = None  # in an override file alone


class Data(Section):
    mirrors: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    affnist: str | None
    validation_fraction: Fraction


class Routing(Section):
    iterations: Iterations
    leaky: bool
    gradient: Literal["all", "last"]
    implementation: Literal["auto", "reference"]


class Loss(Section):
    positive_margin: Share
    negative_margin: Share
    down_weight: Weight
    reconstruction_weight: Weight


class Train(Section):
    save_every: Annotated[float, between(0, 86400)]
    # YAML 1.1 reads `off` as false, YAML 1.2 as text.
    cuda_graph: Annotated[
        Literal["auto", "off"], BeforeValidator(lambda value: "off" if value is False else value)
    ]


class Evaluate(Section):
    seed: Seed
    batch_size: Images
    affine_degrees: Annotated[float, between(0, 180)]
    affine_translate: Share


class Perturb(Section):
    range: Annotated[float, between(0.0001, 10)]
    step: Annotated[float, between(0.0001, 10)]

    @field_validator("step")
    @classmethod
    def _divides_range(cls, step: float, info: ValidationInfo) -> float:
        steps = info.data.get("range", step) / step
        if abs(steps - round(steps)) > 1e-6:
            wanted = f"a whole fraction of perturb.range {info.data['range']}"
            raise unwanted(f"{wanted}, so that the centre column is the unperturbed digit")
        return step


class Params(Section):
    seed: Seed
    budget: str
    budgets: Annotated[dict[str, Budget], BeforeValidator(only_chosen)]
    tasks: dict[Name, Task]
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    data: Data
    network: Network
    routing: Routing
    loss: Loss
    optimizer: Optimizer
    train: Train
    evaluate: Evaluate
    perturb: Perturb

    @field_validator("budget")
    @classmethod
    def _is_known(cls, budget: str, info: ValidationInfo) -> str:
        if budget not in info.context["budgets"]:
            raise unwanted(f"one of {', '.join(info.context['budgets'])}")
        return budget

    @model_validator(mode="after")
    def _runs_fit(self, info: ValidationInfo) -> "Params":
        errors = [*self._errors_of_runs()]
        if not info.context["override"]:  # dvc.yaml names one budget for all runs
            only = invalid("only in an override file: here `budget` is that of all runs")
            with_budget = {name: run for name, run in self.runs.items() if run.budget is not None}
            errors += [
                (("runs", name, "budget"), run.budget, only) for name, run in with_budget.items()
            ]
        if errors:
            raise several(errors)
        return self

    def _errors_of_runs(self) -> Iterator[tuple[tuple, object, PydanticCustomError]]:
        for name, run in self.runs.items():
            network, fraction = NETWORKS[run.network], run.validation_fraction
            for key, able, verb in (
                ("iterations", network.routes, "route"),
                ("reconstruction_weight", network.reconstructs, "reconstruct"),
            ):
                if getattr(run, key) is not None and not able:
                    error = invalid(f"a {run.network} does not {verb}")
                    yield ("runs", name, key), getattr(run, key), error
            fraction = self.data.validation_fraction if fraction is None else fraction
            if run.stop_at_error is not None and fraction == 0:
                error = invalid("there are no validation digits to look at")
                yield ("runs", name, "stop_at_error"), run.stop_at_error, error
            if run.task not in self.tasks:
                error = unwanted(f"one of {', '.join(self.tasks)}")
                yield ("runs", name, "task"), run.task, error
        used = {run.task for run in self.runs.values()}
        for name, task in self.tasks.items():
            for key in ("training_examples", "batch_size"):
                if name in used and self.budget not in getattr(task, key):
                    error = invalid("missing, and runs of this task need it")
                    yield ("tasks", name, key, self.budget), None, error

    @property
    def source(self) -> str:
        """Of the digits: "mnist" or "scikit-learn"."""
        return self.budgets[self.budget].source
