"""What is wrong in params.yaml, in words: a line for each mistake, with its path, what was found
and what is allowed.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from capsnet.networks import NETWORKS

if TYPE_CHECKING:
    from capsnet.params import Params

WORDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
WORDS |= {"string": "text", "array": "a list [..., ...] of at least one"}


def told(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """A line for each mistake in a file that should be a `model`."""
    schema = model.model_json_schema()
    for mistake in error.errors(include_url=False):
        path, wanted, keys = follow(schema, mistake["loc"])
        match mistake["type"]:
            case "missing":
                yield f"{path}: missing"
            case "extra_forbidden":
                yield f"{path}: unknown key, allowed are {', '.join(keys)}"
            case "union_tag_not_found" | "union_tag_invalid" | "model_attributes_type":
                tags = " or ".join(wanted["discriminator"]["mapping"])
                found = mistake["input"]
                tag = found.get("schedule") if isinstance(found, dict) else found
                yield f"{path}.schedule: got {shown(tag)}, wanted {tags}"
            case _:
                found = mistake["input"]
                yield f"{path or 'the file'}: got {shown(found)}, wanted {words(wanted, found)}"


def follow(schema: dict, location: tuple) -> tuple[str, dict, list[str]]:
    """The path in the file, the schema of what is wanted there, and the keys allowed beside it."""
    wanted, path, keys = schema, "", []
    for part in location:
        wanted = resolved(schema, wanted)
        keys = list(wanted.get("properties", {}))
        if "discriminator" in wanted:  # this part of the location is a tag, not a key of the file
            wanted = {"$ref": wanted["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            wanted, path = wanted["items"], f"{path}[{part}]"
        else:
            more = wanted.get("additionalProperties")
            wanted = wanted.get("properties", {}).get(part) or more or {}
            name = str(part) or "''"
            path = f"{path}.{name}" if path else name
    return path, resolved(schema, wanted), keys


def resolved(schema: dict, wanted: dict) -> dict:
    """A reference followed; of what may also be null, the other."""
    if "anyOf" in wanted:
        wanted = wanted["anyOf"][0]
    return schema["$defs"][wanted["$ref"].rpartition("/")[2]] if "$ref" in wanted else wanted


def words(wanted: dict, found: object) -> str:
    if "enum" in wanted:
        return " or ".join(wanted["enum"])
    if "properties" in wanted:
        return f"the keys {', '.join(wanted['properties'])}"
    if "additionalProperties" in wanted:
        each = "section" if "$ref" in wanted["additionalProperties"] else "number"
        return f"names with a {each} each"
    text = WORDS[wanted["type"]]
    if "minimum" in wanted:
        text += f" from {wanted['minimum']:,} to {wanted['maximum']:,}"
    if wanted["type"] == "number" and isinstance(found, str) and is_finite(found):
        text += f"; YAML reads {found} as text, write {float(found):.12f}".rstrip("0")
    return text


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


def with_text_keys(found: object) -> object:
    """Every key as text: YAML reads `1:` as a number and `on:` as true."""
    if not isinstance(found, Mapping):
        return found
    return {str(key): with_text_keys(value) for key, value in found.items()}


def unknown_budget(found: object) -> Iterator[str]:
    """Looked for in the file itself: what is left by `only_chosen` no longer has all the names."""
    if not isinstance(found, Mapping) or not isinstance(found.get("budgets"), Mapping):
        return
    if isinstance(found.get("budget"), str) and found["budget"] not in found["budgets"]:
        known = ", ".join(found["budgets"])
        yield f"budget: got {found['budget']!r}, wanted one of {known}"


def only_chosen(found: object) -> object:
    """Without what belongs to other budgets than the one that `budget` names."""
    if not isinstance(found, Mapping):
        return found

    def chosen(value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {name: value[name] for name in value if name == found.get("budget")}

    kept, tasks = dict(found), found.get("tasks")
    if "budgets" in found:
        kept["budgets"] = chosen(found["budgets"])
    if isinstance(tasks, Mapping):
        kept["tasks"] = {
            name: {key: chosen(value) for key, value in task.items()}
            if isinstance(task, Mapping)
            else task
            for name, task in tasks.items()
        }
    return kept


def contradictions(params: "Params") -> Iterator[str]:
    """What is wrong only between two values that are each allowed."""
    rate = params.chosen_budget.learning_rate
    if rate.floor > rate.peak:
        yield f"budgets.{params.budget}.learning_rate.floor: higher than its peak"
    if not re.fullmatch(r"python|torchrun [^'\"]+", params.launcher):
        yield f"launcher: got {params.launcher!r}, wanted python, or torchrun with its options"
    if not params.runs:
        yield "runs: got none, wanted at least one"
    for name in (
        *(f"runs.{run}" for run in params.runs),
        *(f"tasks.{task}" for task in params.tasks),
    ):
        if not re.fullmatch(r"\w+\.[A-Za-z0-9_]+", name):
            yield f"{name}: a name is letters, digits and _ (it becomes a file name)"
    for name, task in params.tasks.items():
        for key in ("training_shift", "test_shift"):
            if getattr(task, key) > task.image_size // 2:
                yield (
                    f"tasks.{name}.{key}: got {getattr(task, key)}, wanted at most "
                    f"{task.image_size // 2}, half of image_size: the digit's centre stays in it"
                )
    for name, run in params.runs.items():
        if run.network in ("baseline", "convnet") and run.iterations is not None:
            yield f"runs.{name}.iterations: a {run.network} does not route"
        if run.network == "baseline" and run.reconstruction_weight is not None:
            yield f"runs.{name}.reconstruction_weight: a baseline does not reconstruct"
        fraction = run.validation_fraction
        fraction = params.data.validation_fraction if fraction is None else fraction
        if run.stop_at_error is not None and fraction == 0:
            yield f"runs.{name}.stop_at_error: there are no validation digits to look at"
        for key, known in (("network", NETWORKS), ("task", params.tasks)):
            found = getattr(run, key)
            if found not in known:
                yield f"runs.{name}.{key}: got the text {found!r}, wanted one of {', '.join(known)}"
    for task in dict.fromkeys(run.task for run in params.runs.values() if run.task in params.tasks):
        for key in ("training_examples", "batch_size"):
            if params.budget not in getattr(params.tasks[task], key):
                yield f"tasks.{task}.{key}.{params.budget}: missing, and runs of this task need it"
    steps = params.perturb.range / params.perturb.step
    if abs(steps - round(steps)) > 1e-6:
        yield (
            f"perturb.step: got {params.perturb.step}, wanted a whole fraction of perturb.range "
            f"{params.perturb.range}, so that the centre column is the unperturbed digit"
        )
