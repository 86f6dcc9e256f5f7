"""What can change a stage's results, as dvc.yaml lists it: parameters, code, data; and versions."""

import json
from pathlib import Path

import numba
import torch
import yaml

from capsnet.data.archives import ARCHIVES
from capsnet.files import file_md5

ROOT = Path(__file__).resolve().parents[1]  # of the code that runs


def inputs_of(stage: str, run: str, digits: Path, also: Path | None = None) -> dict[str, str]:
    """Name -> value or MD5. params.yaml is that of the working directory, the sections of the file
    `also` in the place of its own; `digits` is the data, of which `train` takes the training split
    and other stages the test.
    """
    tree = yaml.safe_load(Path("params.yaml").read_text())
    if also is not None:
        tree |= yaml.safe_load(also.read_text())
    stages = {
        name: entry
        for file in ("study/dvc.yaml", "dvc.yaml")  # `score` is only in the first
        for name, entry in yaml.safe_load((ROOT / file).read_text())["stages"].items()
    }
    entry = stages[stage]["do"]
    names = {"${budget}": tree["budget"], "${key}": run, "${item.task}": tree["runs"][run]["task"]}
    inputs = {"torch": str(torch.__version__), "numba": numba.__version__}
    for path in filter(lambda path: isinstance(path, str), entry["params"]):
        for name, value in names.items():
            path = path.replace(name, value)
        value = tree
        for key in path.split("."):
            value = value[key]
        inputs[path] = json.dumps(value, sort_keys=True)
    code = [ROOT / path for path in entry["deps"] if path.startswith(("capsnet/", "stages/"))]
    files = [file for path in code for file in ([path] if path.is_file() else path.rglob("*.py"))]
    inputs |= {file.relative_to(ROOT).as_posix(): file_md5(file) for file in files}
    archives = ARCHIVES["train" if stage == "train" else "test"]
    return inputs | {f"digits/{name}": file_md5(digits / name) for name in archives}
