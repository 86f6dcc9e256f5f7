"""The section `data` of params.yaml."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from capsnet.config.section import Section
from capsnet.data.registry import DATA_SETS

Source = Literal[tuple(DATA_SETS)]
TrainingDigits = Annotated[int, Field(ge=10, le=10**12)]
Fraction = Annotated[float, Field(ge=0, le=0.5)]
ImageSize = Annotated[int, Field(ge=8, le=256)]  # pixels, both sides


def plain_path(found: str) -> str:
    """Raises ValueError for what DVC, which tracks the folder, reads otherwise."""
    if found[:1] in ("", "~"):
        raise ValueError(f"got {found!r}, wanted the path of a folder, without ~")
    return found


class Data(Section):
    dataset: Source | None = None  # None: the source of the budget
    folder: Annotated[str, AfterValidator(plain_path)] = "docs/pictures"
    image_size: ImageSize = 28
    background: Literal["black", "white"] = "black"
    test_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    skip_broken: bool = False
    combine: Literal["sum", "max"] = "sum"
    balance: bool = False
    mirrors: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    affnist: str | None
    validation_fraction: Fraction
    training_digits: TrainingDigits | None  # None: all
    augment: bool

    def errors_in_study(self) -> Iterator[str]:
        """The rows of the study are records of MNIST as it is: they do not track these keys."""
        for name in ("dataset", "image_size", "combine", "balance"):
            usual = Data.model_fields[name].default
            if getattr(self, name) != usual:
                yield f"data.{name}: got {getattr(self, name)!r}, the study wants {usual!r}"
