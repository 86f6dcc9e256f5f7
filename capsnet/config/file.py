"""Read params.yaml. An invalid file is a ValueError with one line for each error."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from capsnet.config.params import Params


def load(
    path: Path = Path("params.yaml"), override: Path | None = None, *, run: str | None = None
) -> Params:
    """Read and check the whole file. Sections of the file `override` replace its own.

    A run of `override` may name its own budget, which is the chosen one if `run` is that run.
    All budgets of an override have one data set. Raises ValueError with one line for each error.
    """
    found = read_yaml(path)
    if override is not None:
        load(path)
        found, path = found | read_yaml(override), override
        with suppress(KeyError, TypeError):  # Params finds what is wrong there
            downloaded = found["budgets"][found["budget"]]["source"]
            found["budget"] = found["runs"][run]["budget"] or found["budget"]
            if (source := found["budgets"][found["budget"]]["source"]) != downloaded:
                wanted = f"a budget of {downloaded}, the data of all runs"
                raise ValueError(f"{path}: runs.{run}.budget: got one of {source}, wanted {wanted}")
    context = {name: found.get(name) for name in ("budget", "budgets")}
    try:
        return Params.model_validate(found, context=context | {"override": override is not None})
    except ValidationError as error:
        lines = [f"{path}: {line}" for each in error.errors() for line in lines_of(each)]
        raise ValueError("\n".join(lines)) from None


def lines_of(error: Mapping) -> list[str]:
    """The place in the file and the message. Cross-checks of the file name the place themselves."""
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    # pydantic's names of the members of a union
    tags = r"one_cycle|exponential|constrained-int|tuple\[.*\]"
    place = re.sub(rf"(learning_rate|kernel_size)\.({tags})", r"\1", place)
    lines = error["msg"].removeprefix("Value error, ").splitlines()
    return [f"{place}: {line}" if place else line for line in lines]


def read_yaml(path: Path) -> dict[str, object]:
    """Read a file as DVC does: YAML 1.2 in UTF-8.

    Raises ValueError if the file is missing, is not YAML, has no sections or has keys that DVC
    does not find.
    """
    try:
        found = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        wrong = [*keys_without_text(found)]
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run from the repository root") from None
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = f"line {mark.line + 1}: {error.problem}" if mark else str(error)
        raise ValueError(f"{path} is not YAML: {' '.join(what.split())}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got {found!r}, wanted sections")
    if wrong:
        raise ValueError("\n".join(f"{path}: {line}" for line in wrong))
    return found


def keys_without_text(found: object, place: str = "") -> Iterator[str]:
    """A line for each key such as `1` or `true`: DVC would silently skip a run of this name."""
    for key, value in found.items() if isinstance(found, dict) else ():
        if not key or not isinstance(key, str):
            yield f"{place or 'top level'}: got the key {key!r}, wanted text: put it in quotes"
        yield from keys_without_text(value, f"{place}.{key}".lstrip("."))
