"""params.yaml as frozen pydantic models, with the checks between its values.

Of the budgets only the chosen one is checked: the others are not used, and DVC does not track them.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, create_model, model_validator

from capsnet.config.data import Data, Fraction, ImageSize, Source, TrainingDigits
from capsnet.config.section import Section
from capsnet.nn.registry import NETWORKS


def only_chosen(found: object, info: ValidationInfo) -> object:
    """Drop the entries of all budgets but the chosen one."""
    budget = info.context["budget"]
    return {k: found[k] for k in found if k == budget} if isinstance(found, dict) else found


ByBudget = BeforeValidator(only_chosen)
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_]+$")]  # becomes a file name
Count = Annotated[int, Field(ge=1, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Pixels = Annotated[int, Field(ge=0, le=128)]
Images = Annotated[int, Field(ge=1, le=65536)]
Iterations = Annotated[int, Field(ge=1, le=100)]
Intervals = Annotated[int, Field(ge=1, le=10000)]
Kernel = Annotated[int, Field(ge=1, le=64)]  # pixels
OfTwo = Annotated[tuple[Kernel, Kernel], Field(strict=False)]  # of the two convolutions
Weight = Annotated[float, Field(ge=0, le=100)]


class OneCycle(Section):
    schedule: Literal["one_cycle"]
    peak: Share
    warmup: Annotated[float, Field(ge=0, le=0.9)]
    floor: Share


class Exponential(Section):
    schedule: Literal["exponential"]
    peak: Share
    factor: Share
    every: Count
    floor: Share


class Stem(Section):
    channels: Annotated[tuple[Images, ...], Field(min_length=1, strict=False)]
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1, strict=False)]
    strides: Annotated[tuple[Kernel, ...], Field(min_length=1, strict=False)]
    primary_kernel: Kernel


class Network(Section):
    conv_channels: Annotated[int, Field(ge=1, le=4096)]
    kernel_size: Kernel | OfTwo
    strides: OfTwo | None = None  # None: 1 and 2
    primary_types: Annotated[int, Field(ge=1, le=1024)]
    primary_dim: Annotated[int, Field(ge=1, le=256)]
    class_dim: Annotated[int, Field(ge=1, le=256)]
    decoder_sizes: Annotated[tuple[Images, ...], Field(min_length=1, strict=False)]
    init: Literal["pytorch", "authors"]
    stem: Stem
    weight_std: Annotated[float, Field(ge=0.000001, le=10)]
    dropout: Annotated[float, Field(ge=0, le=0.99)]


class Optimizer(Section):
    beta1: Annotated[float, Field(ge=0, le=0.999999)]
    beta2: Annotated[float, Field(ge=0, le=0.999999)]
    epsilon: Share
    precision: Literal["auto", "float32", "bfloat16"]
    intervals: Intervals


def some_of(section: type[Section]) -> type[Section]:
    """The section with every key optional, for the values that differ from it."""
    fields = section.model_fields.items()
    keys = {name: (field.rebuild_annotation(), None) for name, field in fields}
    return create_model(f"Some{section.__name__}", __base__=Section, **keys)


SomeSizes, SomeOptimizer = some_of(Network), some_of(Optimizer)


class CompactTraining(Section):
    peak: Share
    batch_size: Images
    training_examples: dict[Name, Count]  # by task


class Budget(Section):
    source: Source
    learning_rate: Annotated[OneCycle | Exponential, Field(discriminator="schedule")]
    test_pairs: Count
    study_examples: Count
    perturb_examples: Annotated[int, Field(ge=1, le=10000)]
    network: SomeSizes  # what differs from the sections of the same names
    optimizer: SomeOptimizer
    compact: CompactTraining  # what differs for compact networks


class Task(Section):
    digits: Annotated[int, Field(ge=1, le=2)]  # in an image
    image_size: ImageSize
    training_shift: Pixels
    test_shift: Pixels
    training_examples: Annotated[dict[str, Count], ByBudget]
    batch_size: Annotated[dict[str, Images], ByBudget]


class Run(Section):
    """One training. Where a value is None, that of the sections for all runs holds."""

    task: str
    network: Literal[tuple(NETWORKS)]
    seed: Seed | None = None
    examples: Count | None = None  # images shown in training
    batch_size: Images | None = None
    peak: Share | None = None  # of the learning rate
    iterations: Iterations | None = None
    reconstruction_weight: Weight | None = None
    validation_fraction: Fraction | None = None  # of the training digits
    training_digits: TrainingDigits | None = None
    augment: bool | None = None
    intervals: Intervals | None = None  # rows of the training curve
    stop_at_error: Weight | None = None  # percent, on validation digits
    budget: str | None = None  # only in an override file, as `claim`
    claim: Literal["orientation", "overlap", "digits"] | None = None  # that the run is for


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
    save_every: Annotated[float, Field(ge=0, le=86400)]
    cuda_graph: Literal["auto", "off"]


class Evaluate(Section):
    seed: Seed
    batch_size: Images
    affine_degrees: Annotated[float, Field(ge=0, le=180)]
    affine_translate: Share


class Perturb(Section):
    range: Annotated[float, Field(ge=0.0001, le=10)]
    step: Annotated[float, Field(ge=0.0001, le=10)]


class Sections(Section):
    """The sections that Params and RunConfig share."""

    data: Data
    routing: Routing
    loss: Loss
    optimizer: Optimizer
    train: Train
    evaluate: Evaluate
    perturb: Perturb


class Params(Sections):
    seed: Seed
    budget: str
    budgets: Annotated[dict[Name, Budget], ByBudget]
    tasks: dict[Name, Task]
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    network: Network

    @property
    def source(self) -> str:
        """The data set, a key of DATA_SETS."""
        return self.data.dataset or self.budgets[self.budget].source

    @model_validator(mode="after")
    def _values_fit_together(self, info: ValidationInfo) -> "Params":
        if self.budget not in self.budgets:
            budgets = ", ".join(info.context["budgets"])
            raise ValueError(f"budget: got {self.budget!r}, wanted one of {budgets}")
        errors = [*self._errors_of_sections(), *self._errors_of_tasks()]
        errors += self.data.errors_in_study() if info.context["override"] else ()
        for name, run in self.runs.items():
            errors += [f"runs.{name}.{error}" for error in self._errors_of(run)]
            own = [key for key in ("budget", "claim") if getattr(run, key) is not None]
            if not info.context["override"]:
                errors += [f"runs.{name}.{key}: only an override file may set it" for key in own]
        if errors:
            raise ValueError("\n".join(errors))
        return self

    def _errors_of_sections(self) -> Iterator[str]:
        rate, perturb = self.budgets[self.budget].learning_rate, self.perturb
        if rate.floor > rate.peak:
            place, wanted = f"budgets.{self.budget}.learning_rate.floor", f"at most {rate.peak}"
            yield f"{place}: got {rate.floor}, wanted {wanted}, its peak"
        steps = perturb.range / perturb.step
        if abs(steps - round(steps)) > 1e-6:  # the centre column is the unperturbed digit
            wanted = f"a whole fraction of perturb.range, {perturb.range}"
            yield f"perturb.step: got {perturb.step}, wanted {wanted}"

    def _errors_of_tasks(self) -> Iterator[str]:
        used = {run.task for run in self.runs.values()}
        for name, task in self.tasks.items():
            if name in used and task.image_size < self.data.image_size:
                wanted = f"at least data.image_size, {self.data.image_size}"
                yield f"tasks.{name}.image_size: got {task.image_size}, wanted {wanted}"
            half = task.image_size // 2  # the centre of a digit stays in the image
            for key in ("training_shift", "test_shift"):
                if (shift := getattr(task, key)) > half:
                    wanted = f"at most {half}, half of image_size"
                    yield f"tasks.{name}.{key}: got {shift}, wanted {wanted}"
            for key in ("training_examples", "batch_size"):
                if name in used and self.budget not in getattr(task, key):
                    yield f"tasks.{name}.{key}.{self.budget}: missing, and a run has this task"

    def _errors_of(self, run: Run) -> Iterator[str]:
        network, fraction = NETWORKS[run.network], run.validation_fraction
        if run.iterations is not None and not network.routes:
            yield f"iterations: a {run.network} does not route"
        if run.reconstruction_weight is not None and not network.reconstructs:
            yield f"reconstruction_weight: a {run.network} does not reconstruct"
        fraction = self.data.validation_fraction if fraction is None else fraction
        if run.stop_at_error is not None and fraction == 0:
            yield "stop_at_error: there are no validation digits to look at"
        examples = self.budgets[self.budget].compact.training_examples
        if network.compact and run.examples is None and run.task not in examples:
            yield f"examples: missing, also budgets.{self.budget}.compact has none of {run.task}"
        if run.task not in self.tasks:
            yield f"task: got {run.task!r}, wanted one of {', '.join(self.tasks)}"
