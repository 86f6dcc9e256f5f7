"""Sections of a configuration file, and errors in it as one line each: the path in the file, what
was found, what is wanted.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

WANTED = {  # by pydantic's type of error; of the others its own message
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list [..., ...]",
    "dict_type": "names with a value each",
    "model_type": "the keys {keys}",
    "too_short": "at least one entry",
    "greater_than_equal": "{kind} of at least {ge:,}",
    "less_than_equal": "{kind} of at most {le:,}",
}


class Section(BaseModel):
    """A section of the file. It knows its keys, so it adds them to the errors found in it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _with_keys(cls, found: object, validate: Callable) -> "Section":
        try:
            return validate(found)
        except ValidationError as error:
            keys = {"keys": ", ".join(cls.model_fields)}  # an inner section has added its own
            raise several(
                (
                    one["loc"],
                    one["input"],
                    PydanticCustomError(one["type"], one["msg"], keys | one.get("ctx", {})),
                )
                for one in error.errors(include_url=False)
            ) from None


def several(errors: Iterable[tuple[tuple, object, PydanticCustomError]]) -> ValidationError:
    """One exception from the path, the value found and the error of each."""
    details = [{"loc": path, "input": found, "type": error} for path, found, error in errors]
    return ValidationError.from_exception_data("configuration", details)


def invalid(message: str) -> PydanticCustomError:
    """To raise in a validator; the line is `path: message`."""
    return PydanticCustomError("invalid", message)


def unwanted(wanted: str) -> PydanticCustomError:
    """To raise in a validator; the line is `path: got ..., wanted ...`."""
    return PydanticCustomError("unwanted", wanted)


def between(low: float, high: float) -> Any:
    """Both ends are allowed."""
    return Field(ge=low, le=high)


def matching(pattern: str, wanted: str) -> AfterValidator:
    """Text of which all matches the pattern; `wanted` says it in words."""

    def check(found: str) -> str:
        if not re.fullmatch(pattern, found):
            raise unwanted(wanted)
        return found

    return AfterValidator(check)


def line(error: Mapping) -> str:
    """One of `ValidationError.errors()` in words."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    path = path_of(error["loc"])
    if kind == "missing":
        return f"{path}: missing"
    if kind == "extra_forbidden":
        return f"{path}: unknown key, allowed are {context['keys']}"
    if kind == "invalid":
        return f"{path}: {error['msg']}"
    if kind in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
        found = found.get("schedule") if isinstance(found, Mapping) else found
        return f"{path}.schedule: got {shown(found)}, wanted one_cycle or exponential"
    limit = context.get("ge", context.get("le"))
    context |= {"kind": "a whole number" if isinstance(limit, int) else "a number"}
    wanted = error["msg"].removeprefix("Input should be ")
    if kind in WANTED:
        wanted = WANTED[kind].format(**context)
    if kind == "float_type" and isinstance(found, str) and is_finite(found):
        wanted += f"; YAML reads {found} as text, write {float(found):.12f}".rstrip("0")
    return f"{path}: got {shown(found)}, wanted {wanted}"


def path_of(location: tuple) -> str:
    """Dotted, without what pydantic adds: the tag of a union, the mark of a key."""
    parts = (part for part in location if part != "[key]")
    path = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part or repr('')}" for part in parts
    )
    path = re.sub(r"(learning_rate)\.(one_cycle|exponential)", r"\1", path)
    return path.removeprefix(".") or "the file"


def shown(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, bool):
        return str(value).lower()
    return "nothing" if value is None else repr(value)


def is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
