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
SIZES = {"conv_channels": 8, "primary_types": 2, "decoder_sizes": [16], "weight_std": 0.1}
FEW = {"test_pairs": 20, "study_examples": 4, "perturb_examples": 1}
TINY = {
    "budget": "quick",
    "budgets": {"quick": FEW | {"network": SIZES}},
    "runs": {"pairs": {"task": "multimnist", "network": "capsnet", "examples": 32}},
    "optimizer": {"intervals": 2},
    "routing": {"implementation": "reference"},  # no kernel is compiled
    "perturb": {"step": 0.125},
}


def merge(tree: dict, changes: dict) -> dict:
    for key, value in changes.items():
        deeper = isinstance(value, dict) and key != "runs"
        tree[key] = merge(tree[key], value) if deeper else value
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
        for key, value in (("name", "Test"), ("email", "test@example.org")):
            self.run("git", "config", f"user.{key}", value)
        self.commit()

    def run(self, *command: str, ok: bool = True) -> str:
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for name in ("MLFLOW_TRACKING_URI", "MNIST_MIRROR", "DVC_ROOT"):
            environment.pop(name, None)
        environment["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=400
        )
        printed = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, f"{command}: {done.returncode}\n{printed}"
        return printed

    def dvc(self, *arguments: str, ok: bool = True) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, ok=ok)

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "state")

    def change(self, changes: dict) -> None:
        path = self.folder / "params.yaml"
        tree = merge(yaml.safe_load(path.read_text()), changes)
        path.write_text(yaml.safe_dump(tree, sort_keys=False))


def ran(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"))


def test_an_experiment_makes_every_result(repository):
    stages = {f"{stage}@pairs" for stage in ("train", "evaluate", "perturb")}
    output = repository.dvc("exp", "run", "-n", "first")
    assert ran(output) == {"check", "download", "report"} | stages
    folder = repository.folder / "reports" / "quick" / "runs" / "pairs"
    metrics = json.loads((folder / "metrics.json").read_text())["quick"]["pairs"]
    low, error, high = (metrics[f"test_error{end}"] for end in ("_low", "", "_high"))
    assert 0 <= low <= error <= high <= 100
    curve = pd.read_csv(folder / "training.csv")
    assert len(curve) == 2 and curve["images_per_second"].gt(0).all()
    assert load(repository.folder / "models" / "pairs.safetensors").decoder is not None


def test_the_stages_log_to_mlflow(repository):
    """Each has a finished run, the evaluation as a child of the training; both have the error."""

    def table(statement: str) -> dict:
        with sqlite3.connect(repository.folder / "mlflow.db") as store:
            return dict(store.execute(statement).fetchall())

    ids = table("select name, run_uuid from runs where status = 'FINISHED'")
    parent, child, last = (f"pairs{name} (first)" for name in ("", " evaluate", " perturb"))
    assert set(ids) == {parent, child, last}
    tags = table(f"select key, value from tags where run_uuid = '{ids[parent]}'")
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text())["stages"]
    assert tags["checkpoint.md5"] == lock["train@pairs"]["outs"][0]["md5"]
    parents = table("select run_uuid, value from tags where key = 'mlflow.parentRunId'")
    assert parents[ids[child]] == parents[ids[last]] == ids[parent]
    errors = table("select run_uuid, value from latest_metrics where key = 'test_error'")
    assert errors[ids[parent]] == errors[ids[child]] and 0 <= errors[ids[child]] <= 100
    artifacts = repository.folder / "mlartifacts"
    for name in ("pairs.safetensors", "reconstructions.png", "pairs.html"):
        assert [*artifacts.rglob(name)]


def test_a_clone_pulls_the_results_and_has_nothing_to_run(repository, tmp_path):
    """Nor has it before, without the weights."""
    repository.dvc("remote", "add", "--default", "disk", str(tmp_path / "remote"))
    repository.commit()
    repository.dvc("push")
    clone = copy.copy(repository)
    clone.folder = tmp_path / "clone"
    repository.run("git", "clone", "-q", str(repository.folder), str(clone.folder))
    assert ran(clone.dvc("repro", "--dry", "--allow-missing")) == set()
    assert not (clone.folder / "models").exists()
    clone.dvc("pull")
    assert ran(clone.dvc("repro", "--dry")) == set()
    assert (clone.folder / "models" / "pairs.safetensors").exists()


def test_a_changed_parameter_reruns_only_what_depends_on_it(repository):
    """Numbers of another budget change no result: `check` alone reads the tasks."""
    repository.change({"budgets": {"paper": {"test_pairs": 5}}, "perturb": {"step": 0.05}})
    repository.change({"tasks": {"mnist": {"batch_size": {"paper": 256}}}})
    stages = ran(repository.dvc("repro", "--dry"))
    assert stages == {"check", "perturb@pairs", "report"}


def test_a_mistake_costs_no_result(repository):
    """One line, an exit code, and everything that was there is still there."""
    folders = repository.folder / "reports", repository.folder / "models"
    before = {path: path.read_bytes() for folder in folders for path in folder.rglob("*.*")}
    repository.change({"routing": {"iterations": 0}})
    output = repository.dvc("repro", ok=False)
    assert "params.yaml: routing.iterations: got 0, wanted" in output
    assert "Traceback" not in output and ran(output) == {"check"}
    assert {path: path.read_bytes() for path in before} == before and len(before) > 20
