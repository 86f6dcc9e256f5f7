"""The base of every section of params.yaml, with errors in plain words."""

from collections.abc import Callable, Iterable, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A frozen section. Unknown keys and other types than the declared ones are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_words(cls, found: object, validate: Callable) -> "Section":
        try:
            return validate(found)
        except ValidationError as error:
            details = []
            for each in error.errors():
                plain = PydanticCustomError("plain", message(each, cls.model_fields))
                details.append({"loc": each["loc"], "input": each["input"], "type": plain})
            raise ValidationError.from_exception_data(cls.__name__, details) from None


def message(error: Mapping, keys: Iterable[str]) -> str:
    """What one of `ValidationError.errors()` found and wanted. keys: those of the section."""
    found, text = error["input"], error["msg"]
    if error["type"] == "extra_forbidden":
        return f"unknown key, allowed are {', '.join(keys)}"
    if error["type"] == "model_type":
        return f"got {found!r}, wanted the keys {', '.join(keys)}"
    if text.startswith("Input should be "):
        text = f"got {found!r}, wanted {text.removeprefix('Input should be ')}"
    return text
