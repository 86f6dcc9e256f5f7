"""Read params.yaml. An invalid file is a ValueError with one line for each error."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import yaml
from pydantic import ValidationError

from capsnet.config.params import Params


def load(
    path: Path = Path("params.yaml"), override: Path | None = None, *, run: str | None = None
) -> Params:
    """Read and check the whole file. Sections of the file `override` replace its own.

    A run of `override` may name its own budget, which is the chosen one if `run` is that run.
    Raises ValueError with one line for each error.
    """
    found = read_yaml(path)
    if override is not None:
        load(path)
        found, path = found | read_yaml(override), override
        with suppress(KeyError, TypeError):  # Params finds what is wrong there
            found["budget"] = found["runs"][run]["budget"] or found["budget"]
    context = {name: found.get(name) for name in ("budget", "budgets")}
    try:
        return Params.model_validate(found, context=context | {"override": override is not None})
    except ValidationError as error:
        lines = [f"{path}: {line}" for each in error.errors() for line in lines_of(each)]
        raise ValueError("\n".join(lines)) from None


def lines_of(error: Mapping) -> list[str]:
    """The place in the file and the message. Cross-checks of the file name the place themselves."""
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    place = re.sub(r"(learning_rate)\.(one_cycle|exponential)", r"\1", place)  # tags of the union
    lines = error["msg"].removeprefix("Value error, ").splitlines()
    return [f"{place}: {line}" if place else line for line in lines]


def read_yaml(path: Path) -> dict[str, object]:
    """Raises ValueError if the file is missing, is not YAML or has no sections."""
    try:
        found = with_text_keys(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run from the repository root") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got {found!r}, wanted sections")
    return found


def with_text_keys(found: object) -> object:
    """YAML reads the key `1:` as a number and `on:` as true."""
    if isinstance(found, dict):
        return {str(key): with_text_keys(value) for key, value in found.items()}
    return found
