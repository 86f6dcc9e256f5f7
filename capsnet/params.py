"""params.yaml as frozen pydantic models: every key is checked before anything runs.

Of the budgets only the chosen one is checked: the others are not used, and DVC does not look at
them. A wrong file stops with one line for each mistake: the path in the file, what was found, what
is allowed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from capsnet.mistakes import contradictions, only_chosen, told, unknown_budget, with_text_keys


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def between(low: float, high: float, **more: Any) -> Any:
    """Both ends are allowed."""
    return Field(ge=low, le=high, **more)


Count = Annotated[int, between(1, 10**12)]
Share = Annotated[float, between(0, 1)]
Seed = Annotated[int, between(0, 2**63 - 1)]
Pixels = Annotated[int, between(0, 128)]
Images = Annotated[int, between(1, 65536)]
Iterations = Annotated[int, between(1, 100)]
Fraction = Annotated[float, between(0, 0.5)]
Percent = Annotated[float, between(0, 100)]
Weight = Annotated[float, between(0, 100)]


class OneCycle(Section):
    schedule: Literal["one_cycle"]
    peak: Share
    warmup: Annotated[float, between(0, 0.9)]
    floor: Share


class Exponential(Section):
    schedule: Literal["exponential"]
    peak: Share
    factor: Share
    every: Count
    floor: Share


class Network(Section):
    conv_channels: Annotated[int, between(1, 4096)]
    kernel_size: Annotated[int, between(1, 14)]
    primary_types: Annotated[int, between(1, 1024)]
    primary_dim: Annotated[int, between(1, 256)]
    digit_dim: Annotated[int, between(1, 256)]
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
    training_examples: dict[str, Count]  # by budget
    batch_size: dict[str, Images]  # by budget


class Run(Section):
    """One training; what is None is as in the sections of the same name for all runs."""

    task: str
    network: str
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


class Params(Section):
    seed: Seed
    budget: str
    budgets: dict[str, Budget]
    tasks: dict[str, Task]
    runs: dict[str, Run]
    data: Data
    network: Network
    routing: Routing
    loss: Loss
    optimizer: Optimizer
    launcher: str
    train: Train
    evaluate: Evaluate
    perturb: Perturb

    @property
    def chosen_budget(self) -> Budget:
        return self.budgets[self.budget]


def load_params(
    path: Path = Path("params.yaml"), override: Path | None = None, *, run: str | None = None
) -> Params:
    """Read and check the whole file. The sections of the file `override` replace its own; there a
    run may name its own budget, which is the one chosen where the parameters are those of `run`.

    Raises ValueError with one line per mistake.
    """
    found = with_text_keys(read_yaml(path))
    if override is not None:
        load_params(path)
        own = with_text_keys(read_yaml(override))
        if not isinstance(own, Mapping):
            raise ValueError(f"{override}: wanted sections")
        found, path = {**found, **own}, override
        runs = found.get("runs")
        settings = runs.get(run) if isinstance(runs, Mapping) else None
        if isinstance(settings, Mapping) and settings.get("budget") is not None:
            found["budget"] = settings["budget"]
    mistakes = list(unknown_budget(found))
    try:
        params = Params.model_validate(only_chosen(found))
    except ValidationError as error:
        mistakes += told(error, Params)
    if not mistakes:
        mistakes += contradictions(params)
        if override is None:  # dvc.yaml names one budget for all runs
            with_budget = (name for name, one in params.runs.items() if one.budget is not None)
            mistakes += (f"runs.{name}.budget: wanted `budget` at the top" for name in with_budget)
    if mistakes:
        raise ValueError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return params


def read_yaml(path: Path) -> object:
    """Raises ValueError if the file is missing or is not YAML."""
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run from the repository root") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
