"""Imports point to lower floors only, and dvc.yaml names the files that each stage reads."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from pathspec import PathSpec

from capsnet.paths import run_paths
from capsnet.studies.registry import STUDIES

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "capsnet").rglob("*.py")) + sorted((ROOT / "stages").glob("*.py"))
FLOORS = (  # from top to bottom, each with its rooms: a folder, or files that belong together
    ("stages", "predict", "benchmark", "explore/__main__", "__main__"),
    ("studies", "reading", "explore", "tracking provenance"),
    ("learning checkpoint", "config", "plots"),
    ("nn", "data"),
    ("files", "losses", "metrics", "__init__", "paths"),
)
# The log of runs and the start of a program change no result.
NO_RESULT_DEPENDS_ON = ("capsnet/__init__.py", "capsnet/provenance.py", "capsnet/tracking/")


@cache
def imported(path: Path) -> set[str]:
    """Modules that `path` imports anywhere, and names that may be modules."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_files(path: Path) -> set[str]:
    """Files of this repository that `path` imports, as paths from the root."""
    paths = [name.replace(".", "/") for name in imported(path)]
    files = {f"{path}.py" for path in paths} | {f"{path}/__init__.py" for path in paths}
    return {file for file in files if (ROOT / file).is_file()}


def reached(path: Path) -> set[str]:
    files, queue = set(), [path.relative_to(ROOT).as_posix()]
    while queue:
        file = queue.pop()
        if file not in files:
            files.add(file)
            queue += imported_files(ROOT / file)
    return files


def room(file: str) -> tuple[int, str]:
    """Floor, counted from the top, and room of a file, by its longest known part."""
    name, known = file.removeprefix("capsnet/").removesuffix(".py"), {}
    for floor, rooms in enumerate(FLOORS):
        for each in rooms:
            known |= {part: (floor, each) for part in each.split()}
    parts = [part for part in known if name == part or name.startswith(part + "/")]
    assert parts, f"{name}: give it a room in this test"
    return known[max(parts, key=len)]


def test_a_file_imports_its_own_room_or_a_lower_floor_and_none_imports_itself():
    graph = {path.relative_to(ROOT).as_posix(): imported_files(path) for path in FILES}
    for file, others in graph.items():
        for other in others:
            below = room(other)[0] > room(file)[0]
            assert below or room(other) == room(file), f"{file} imports {other}"
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("package", "rooms"),
    [("mlflow", {"tracking", "reading"}), ("matplotlib", {"plots", "studies"}), ("dvc", set())],
)
def test_a_library_is_imported_in_these_rooms_alone(package, rooms):
    using = [path for path in FILES if package in {name.split(".")[0] for name in imported(path)}]
    assert {path.relative_to(ROOT).with_suffix("").parts[1] for path in using} == rooms


def test_a_network_is_imported_without_the_heavy_packages():
    """And without compilers, also if it is built on the meta device as for a checkpoint. Programs
    and stages start where the module `resource` is missing, as on Windows.
    """
    heavy = {"mlflow", "matplotlib", "pandas", "dvc", "sklearn", "skimage", "numba", "triton"}
    heavy |= {"torch._dynamo"}
    code = "import sys; sys.modules['resource'] = None; import torch, capsnet.nn.capsnet as c\n"
    code += "with torch.device('meta'): c.CapsNet(image_size=28, init='authors')\n"
    code += f"print(*{heavy} & set(sys.modules)); import capsnet.predict, stages.train"
    start = [sys.executable, "-c", code]
    done = subprocess.run(start, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done


def stages_of_dvc_yaml() -> dict[str, dict]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def parts_of_topics(name: str) -> set[str]:
    """Files of topics that the stage imports by name."""
    files = set()
    for topic, study in STUDIES.items():
        if name == "report":
            parts = ["describe"] * study.shown
        elif name == study.stage.replace("train", "evaluate"):  # which draws the curve
            parts = ["measure"] * (study.stage != "train") + ["draw"] * study.shown
        else:
            parts = []
        files |= {f"capsnet/studies/{topic}/{part}.py" for part in parts}
    return files


def programs(name: str, stage: dict) -> set[str]:
    """Files that the commands of the stage reach."""
    names = re.findall(r"-m (stages\.\w+)", str(stage["cmd"]))
    files = {module.replace(".", "/") + ".py" for module in names} | parts_of_topics(name)
    return set().union(*(reached(ROOT / file) for file in files))


@pytest.mark.parametrize("name", stages_of_dvc_yaml())
def test_dvc_yaml_names_the_files_that_a_stage_reads_and_no_others(name):
    """A change of another file would leave a stale result."""
    stage, ignored = stages_of_dvc_yaml()[name], ("stages/__init__.py", *NO_RESULT_DEPENDS_ON)
    files = {file for file in programs(name, stage) if not file.startswith(ignored)}
    deps = {dep for dep in stage["deps"] if dep.startswith(("capsnet", "stages"))}
    found = {(file, dep) for file in files for dep in deps if f"{file}/".startswith(f"{dep}/")}
    assert ({file for file, _ in found}, {dep for _, dep in found}) == (files, deps)


def test_the_paths_of_dvc_yaml_are_those_of_the_code():
    outs = {name: str(stage) for name, stage in stages_of_dvc_yaml().items()}
    paths = run_paths("${key}", "${budget}")
    assert str(paths.digits) in outs["download"] and str(paths.curve) in outs["train"]
    assert str(paths.model) in outs["train"] and str(paths.explorer) in outs["perturb"]
    study = (ROOT / "study" / "dvc.yaml").read_text().replace("${models}", "../models/study")
    assert f"../{run_paths('${key}', '', study=True).model}" in study


def test_a_launcher_takes_the_place_of_python():
    """The shell splits it into words."""
    command = stages_of_dvc_yaml()["train"]["cmd"].replace("\\$", "$").replace("${key}", "mnist")
    environment = os.environ | {"LAUNCHER": "echo torchrun --nproc-per-node 2"}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
    assert done.stdout == "torchrun --nproc-per-node 2 -m stages.train mnist\n"


def test_a_row_of_the_study_is_a_record():
    """No stage depends on code. `train` has the root's parameters except those of its own run, and
    compact networks set theirs in the run: a new recipe makes no row stale.
    """
    study = yaml.safe_load((ROOT / "study" / "dvc.yaml").read_text())["stages"]
    stages = {name: stage.get("do", stage) for name, stage in study.items()}
    assert not [dep for stage in stages.values() for dep in stage.get("deps", []) if ".py" in dep]
    [own] = [entry for entry in stages["train"]["params"] if isinstance(entry, dict)]
    ours = {name.replace("${item.budget}", "${budget}") for name in own["../params.yaml"]}
    of_a_run = {"seed", "budget", "runs.${key}", "tasks.${item.task}.training_examples.${budget}"}
    of_a_run |= {"budgets.${budget}.compact", "data.balance"}  # the study refuses data.balance
    assert ours == set(stages_of_dvc_yaml()["train"]["params"]) - of_a_run


def test_a_file_of_an_editor_or_a_desktop_makes_no_result_stale():
    names = (".DS_Store", "._a.py", "Thumbs.db", "desktop.ini", ".a.py.swp", "a.py~", ".#a.py",
             "#a.py#", "a.orig", ".idea/a.xml", ".ipynb_checkpoints/a.py", ".nfs01", ".a.partial",
             "__pycache__/a.pyc")  # fmt: skip
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    ignored = PathSpec.from_lines("gitignore", lines).match_file  # as DVC does it
    assert [name for name in (*names, "a.py") if not ignored(f"capsnet/nn/{name}")] == ["a.py"]


def test_every_clone_has_the_same_bytes():
    """Whatever core.autocrlf says: DVC compares bytes."""
    command = ["git", "ls-files", "--eol"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    ends = {line.split("\t")[0].split()[0] + line.partition("attr/")[2].split("\t")[0].rstrip()
            for line in lines}  # fmt: skip
    assert ends == {"i/lftext=auto eol=lf", "i/-text-text"}


def test_the_lock_has_every_requirement_in_the_same_version():
    """requirements.lock is made from requirements.txt, see docs/experiments.md."""
    pinned = re.compile(r"^([\w.\-]+==[\w.]+)", re.MULTILINE)
    wanted = pinned.findall((ROOT / "requirements.txt").read_text())
    locked = {name.lower() for name in pinned.findall((ROOT / "requirements.lock").read_text())}
    assert wanted and not [name for name in wanted if name.lower() not in locked]
