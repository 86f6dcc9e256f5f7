"""The real pipeline in a temporary repository. The tests build on each other and run in order.

Networks and data are tiny: a stage spends most of its time on imports.
"""

import copy
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from capsnet.checkpoint import load

ROOT = Path(__file__).parent.parent
SIZES = {"conv_channels": 16, "primary_types": 4, "decoder_sizes": [32], "weight_std": 0.1}
FEW = {"test_pairs": 60, "study_examples": 20, "perturb_examples": 2}
SHORT = {"mnist": 256, "mnist40": 96, "multimnist": 96}
TINY = {
    "budget": "quick",
    "budgets": {"quick": FEW | {"network": SIZES, "compact": {"training_examples": SHORT}}},
    "tasks": {task: {"training_examples": {"quick": images}} for task, images in SHORT.items()},
    "optimizer": {"intervals": 2},
    "routing": {"implementation": "reference"},  # no kernel is compiled
}
RUNS = ("mnist", "multimnist")


def merge(tree: dict, changes: dict) -> dict:
    for key, value in changes.items():
        tree[key] = merge(tree[key], value) if isinstance(value, dict) else value
    return tree


class Repository:
    """A copy of this working tree, with tiny parameters, as a git repository of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, files.split("\0")):
            dropped = name == "dvc.lock" or name.startswith(("reports/", "tests/"))
            if not dropped and (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        self.change(TINY)
        self.run("git", "init", "-q")
        self.run("git", "config", "user.name", "Test")
        self.run("git", "config", "user.email", "test@example.org")
        self.commit()

    def run(self, *command: str, ok: bool = True, **variables: str) -> str:
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for name in ("MLFLOW_TRACKING_URI", "MNIST_MIRROR", "DVC_ROOT"):
            environment.pop(name, None)
        environment |= {"COLUMNS": "160", "OMP_NUM_THREADS": "1"} | variables
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=400
        )
        printed = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, f"{command}: {done.returncode}\n{printed}"
        return printed

    def dvc(self, *arguments: str, ok: bool = True) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, ok=ok)

    def repro(self, *options: str) -> set[str]:
        """Stages that `dvc repro` runs."""
        return ran(self.dvc("repro", *options))

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "state")

    def change(self, changes: dict) -> None:
        path = self.folder / "params.yaml"
        tree = merge(yaml.safe_load(path.read_text()), changes)
        path.write_text(yaml.safe_dump(tree, sort_keys=False))

    def query(self, statement: str) -> list[tuple]:
        with sqlite3.connect(self.folder / "mlflow.db") as store:
            return store.execute(statement).fetchall()

    def clone(self, folder: Path) -> "Repository":
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        other = copy.copy(self)
        other.folder = folder
        return other


def ran(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"))


def test_an_experiment_makes_every_result(repository):
    """`dvc exp run` runs all stages; then `dvc repro` runs none, and `dvc exp show` lists it."""
    output = repository.dvc("exp", "run", "-n", "first", "-S", "perturb.step=0.125")
    stages = {f"{stage}@{run}" for stage in ("train", "evaluate", "perturb") for run in RUNS}
    assert ran(output) == {"check", "download", "report"} | stages
    assert "first" in repository.dvc("exp", "show", "--no-pager", "--json")
    for run in RUNS:
        folder = repository.folder / "reports" / "quick" / "runs" / run
        metrics = json.loads((folder / "metrics.json").read_text())["quick"][run]
        assert 0 <= metrics["error_low"] <= metrics["error"] <= metrics["error_high"] <= 100
        curve = pd.read_csv(folder / "training.csv")
        assert len(curve) == 2 and curve["images_per_second"].gt(0).all()
        assert (folder / "figures" / "reconstructions.png").is_file()
        assert load(repository.folder / "models" / f"{run}.safetensors").decoder is not None
    assert "failed to load" not in repository.dvc("plots", "show")
    assert repository.repro() == set()
    repository.commit()
    assert repository.repro("--dry", "--allow-missing") == set()


def test_the_summary_links_to_files_that_exist(repository):
    summary = repository.folder / "reports" / "quick" / "summary.md"
    targets = [part.split(")")[0] for part in summary.read_text().split("](")[1:]]
    assert len(targets) > 30  # figures inline, tables linked
    for target in targets:
        assert (summary.parent / target).is_file(), target


def test_the_mlflow_runs_have_files_parameters_metrics_and_parents(repository):
    rows = repository.query("select name, run_uuid, status, artifact_uri from runs")
    assert {status for _, _, status, _ in rows} == {"FINISHED"}
    ids = {name: run for name, run, _, _ in rows}
    places = {name: Path(uri.removeprefix("file://")) for name, _, _, uri in rows}
    names = {f"{run}{stage}" for run in RUNS for stage in ("", " evaluate", " perturb")}
    assert {name.removesuffix(" (first)") for name in ids} == names

    def table(which: str, name: str) -> dict:
        found = repository.query(f"select key, value from {which} where run_uuid = '{ids[name]}'")
        return dict(found)

    parent, child = "mnist (first)", "mnist evaluate (first)"
    assert (places[parent] / "checkpoint" / "mnist.safetensors").is_file()
    assert (places[child] / "figures" / "reconstructions.png").is_file()
    assert (places["mnist perturb (first)"] / "mnist.html").is_file()
    assert table("params", parent)["routing.iterations"] == "3"
    tags = table("tags", parent)
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text())
    assert tags["checkpoint.md5"] == lock["stages"]["train@mnist"]["outs"][0]["md5"]
    assert table("tags", child)["mlflow.parentRunId"] == ids[parent]
    path = repository.folder / "reports" / "quick" / "runs" / "mnist" / "metrics.json"
    error = json.loads(path.read_text())["quick"]["mnist"]["error"]
    for name in (parent, child):
        assert table("latest_metrics", name)["test_error"] == pytest.approx(error, abs=0.01)


def test_training_again_gives_the_same_bytes_without_the_test_split(repository, tmp_path):
    """With the test archives gone and two threads instead of one."""
    shutil.copytree(repository.folder / "data", tmp_path / "data")
    shutil.copy(repository.folder / "params.yaml", tmp_path)
    for archive in (tmp_path / "data" / "digits").glob("t10k*"):
        archive.unlink()
    other = copy.copy(repository)
    other.folder = tmp_path
    variables = {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    variables |= {"MLFLOW_TRACKING_URI": f"sqlite:///{repository.folder}/mlflow.db"}
    other.run(sys.executable, "-m", "stages.train", "mnist", **variables)
    model = Path("models") / "mnist.safetensors"
    assert (tmp_path / model).read_bytes() == (repository.folder / model).read_bytes()


def test_a_changed_parameter_reruns_only_what_depends_on_it(repository):
    repository.change({"budgets": {"paper": {"test_pairs": 5}}})
    assert repository.repro("--dry") == set()
    repository.change({"tasks": {"mnist": {"batch_size": {"paper": 256}}}})
    assert repository.repro() == {"check"}
    repository.change({"perturb": {"step": 0.05}})
    stages = repository.repro("--dry") - {"report"}
    assert stages == {"check", "perturb@mnist", "perturb@multimnist"}
    repository.change({"perturb": {"step": 0.125}})


def test_a_mistake_costs_no_result(repository):
    """One line, an exit code, and everything that was there is still there."""
    before = {path: path.read_bytes() for path in (repository.folder / "reports").rglob("*.*")}
    repository.change({"routing": {"iterations": 0}})
    output = repository.dvc("repro", ok=False)
    assert "params.yaml: routing.iterations: got 0, wanted" in output
    assert "Traceback" not in output and ran(output) == {"check"}
    assert {path: path.read_bytes() for path in before} == before
    assert (repository.folder / "models" / "mnist.safetensors").is_file()
    repository.change({"routing": {"iterations": 3}})


def test_a_clone_pulls_from_a_remote_and_runs_nothing(repository, tmp_path):
    repository.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    repository.commit()
    repository.dvc("push")
    clone = repository.clone(tmp_path / "clone")
    clone.dvc("pull")
    assert clone.repro() == set()
    assert clone.run("git", "status", "--porcelain") == ""


def test_the_study_trains_what_is_missing(repository):
    """One run, then one more: it alone is trained. Changed code makes no row stale, and a clone
    without weights or data runs nothing.
    """
    study = repository.folder / "study"
    (study / "dvc.lock").unlink()
    stages = yaml.safe_load((study / "dvc.yaml").read_text())
    for name in ("transform", "publish", "page"):  # of runs that are not here
        del stages["stages"][name]
    (study / "dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    alike = {"budget": "quick", "task": "multimnist", "network": "capsnet", "examples": 64}
    runs = {"gpu": {**alike, "seed": 1}}

    def repro(**more: dict) -> set[str]:
        tree = {"budget": "quick", "runs": runs | more}
        (study / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        return ran(repository.dvc("--cd", "study", "repro"))

    assert repro() == {"download", "train@gpu", "evaluate@gpu", "show@gpu", "report"}
    reports = repository.folder / "reports" / "study"
    assert "](gpu/figures/reconstructions.png)" in (reports / "gpu.md").read_text()
    record = json.loads((reports / "runs" / "gpu" / "record.json").read_text())
    assert record["examples"] == 64 and all(record.values())
    with open(repository.folder / "capsnet" / "learning" / "training.py", "a") as code:
        code.write("# changed\n")
    new = {"train@r3_seed2", "evaluate@r3_seed2", "report"}
    assert repro(r3_seed2={**alike, "seed": 2}) == new
    assert "| r3_seed2 " in (reports / "study.md").read_text()
    repository.commit()
    clone = repository.clone(repository.folder.with_name("clone"))
    assert ran(clone.dvc("--cd", "study", "repro", "--allow-missing")) == set()
