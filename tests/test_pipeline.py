"""The real pipeline, in a temporary repository: `dvc repro` twice, a changed parameter, a mistake,
the queue.

Networks and data are tiny (a stage spends most of its time on imports). The tests of this file
build on each other and run in order.
"""

import copy
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from capsnet.checkpoint import load

ROOT = Path(__file__).parent.parent
README_DROP = re.search(r"--drop '(.*)'", (ROOT / "README.md").read_text())[1]
SIZES = {"conv_channels": 16, "primary_types": 4, "decoder_sizes": [32], "weight_std": 0.1}
FEW = {"test_pairs": 60, "study_examples": 20, "perturb_examples": 2}
SHORT = {"mnist": 256, "mnist40": 96, "multimnist": 96}
TINY = {
    "budget": "quick",
    "budgets": {"quick": FEW | {"network": SIZES}},
    "tasks": {task: {"training_examples": {"quick": images}} for task, images in SHORT.items()},
    "optimizer": {"intervals": 2},
}


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
            if (
                name == "dvc.lock"
                or name.startswith(("reports/", "tests/"))
                or not (ROOT / name).exists()
            ):
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        tree = merge(yaml.safe_load((folder / "params.yaml").read_text()), TINY)
        tree["runs"] = {run: tree["runs"][run] for run in ("mnist", "multimnist")}
        (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        self.run("git", "init", "-q")
        self.run("git", "config", "user.name", "Test")
        self.run("git", "config", "user.email", "test@example.org")
        self.commit()

    def run(self, *command: str, ok: bool = True, **variables: str) -> str:
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for name in (
            "MLFLOW_TRACKING_URI",
            "MNIST_MIRROR",
            "DVC_ROOT",
            "DVC_STAGE",
            "DVC_EXP_NAME",
        ):
            environment.pop(name, None)
        environment |= {"COLUMNS": "160", "OMP_NUM_THREADS": "1"} | variables
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=400
        )
        assert (done.returncode == 0) == ok, (
            f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout + done.stderr

    def dvc(self, *arguments: str, ok: bool = True) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, ok=ok)

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "state")

    def change(self, changes: dict) -> None:
        path = self.folder / "params.yaml"
        path.write_text(
            yaml.safe_dump(merge(yaml.safe_load(path.read_text()), changes), sort_keys=False)
        )

    def query(self, statement: str) -> list[tuple]:
        with sqlite3.connect(self.folder / "mlflow.db") as store:
            return store.execute(statement).fetchall()


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"))


def ran(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def test_repro_makes_every_result(repository):
    output = repository.dvc("repro")
    runs = {
        f"{stage}@{run}"
        for stage in ("train", "evaluate", "perturb")
        for run in ("mnist", "multimnist")
    }
    assert ran(output) == {"check", "download", "report"} | runs
    reports = repository.folder / "reports"
    for run in ("mnist", "multimnist"):
        metrics = json.loads((reports / "runs" / run / "metrics.json").read_text())[run]
        assert 0 <= metrics["error_low"] <= metrics["error"] <= metrics["error_high"] <= 100
        curve = pd.read_csv(reports / "runs" / run / "training.csv")
        assert len(curve) == 2 and curve["images_per_second"].gt(0).all()
        figures = {path.name for path in (reports / "runs" / run / "figures").iterdir()}
        drawn = ("training", "reconstructions", "confusion", "calibration", "routing", "couplings")
        assert {f"{name}.png" for name in drawn} <= figures
        tables = ("errors", "confusion", "routing", "calibration", "counts", "perturbation")
        assert all(len(pd.read_csv(reports / "runs" / run / f"{name}.csv")) for name in tables)
        assert (reports / "runs" / run / "perturbation" / "overview.png").is_file()
        assert load(repository.folder / "models" / f"{run}.safetensors").decoder is not None
    assert (reports / "runs" / "mnist" / "figures" / "affine.png").is_file()
    assert len(pd.read_csv(reports / "runs" / "mnist" / "robustness.csv")) > 20
    assert (reports / "figures" / "robustness.png").is_file()


def test_the_summary_links_to_files_that_exist(repository):
    summary = repository.folder / "reports" / "summary.md"
    text = summary.read_text()
    first = text.splitlines()[0]
    assert "`quick`" in first and "scikit-learn" in first
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(targets) > 30  # figures inline, tables linked
    for target in targets:
        assert (summary.parent / target).is_file(), target


def test_a_second_repro_runs_nothing(repository):
    assert ran(repository.dvc("repro")) == set()
    repository.commit()
    assert repository.dvc("repro", "--dry", "--allow-missing").count("Running stage") == 0


def test_the_mlflow_store_holds_every_run_and_every_file(repository):
    rows = repository.query("select run_uuid, name, status, artifact_uri from runs")
    assert sorted(name for _, name, _, _ in rows) == sorted(
        f"{run}{suffix}"
        for run in ("mnist", "multimnist")
        for suffix in ("", " evaluate", " perturb")
    )
    assert {status for _, _, status, _ in rows} == {"FINISHED"}
    wanted = {
        "": {"checkpoint/{run}.safetensors", "training.csv"},
        " evaluate": {"metrics.json", "figures/reconstructions.png", "figures/confusion.png"},
        " perturb": {"perturbation.csv", "perturbation/overview.png", "{run}.html"},
    }
    for _, name, _, uri in rows:
        folder = Path(uri.removeprefix("file://"))
        assert folder.is_relative_to(repository.folder)
        run, _, stage = name.partition(" ")
        for file in wanted[f" {stage}" if stage else ""]:
            assert (folder / file.format(run=run)).is_file(), f"{name}: {file}"


def test_the_mlflow_runs_have_parameters_tags_metrics_and_parents(repository):
    ids = {name: run for run, name in repository.query("select run_uuid, name from runs")}
    parameters = dict(
        repository.query(f"select key, value from params where run_uuid = '{ids['mnist']}'")
    )
    assert parameters["routing.iterations"] == "3" and parameters["task.name"] == "mnist"
    tags = dict(repository.query(f"select key, value from tags where run_uuid = '{ids['mnist']}'"))
    assert tags["routing.iterations"] == "3" and tags["dvc.stage"] == "train@mnist"
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text())
    assert tags["checkpoint.md5"] == lock["stages"]["train@mnist"]["outs"][0]["md5"]
    curve = repository.query(
        f"select step from metrics where key = 'loss' and run_uuid = '{ids['mnist']}' order by step"
    )
    assert [step for (step,) in curve] == [128, 256]
    results = json.loads((repository.folder / "reports/runs/mnist/metrics.json").read_text())[
        "mnist"
    ]
    for name in ("mnist", "mnist evaluate"):
        [(error,)] = repository.query(
            f"select value from latest_metrics where key = 'error' and run_uuid = '{ids[name]}'"
        )
        assert error == pytest.approx(results["error"], abs=0.01)
    for stage in ("evaluate", "perturb"):
        tags = dict(
            repository.query(
                f"select key, value from tags where run_uuid = '{ids[f'mnist {stage}']}'"
            )
        )
        assert tags["mlflow.parentRunId"] == ids["mnist"]
    [(inputs,)] = repository.query("select count(*) from inputs")
    assert inputs >= 4


def test_training_again_gives_the_same_bytes_and_never_opens_the_test_split(repository, tmp_path):
    """Also with the test archives gone, so nothing can be chosen on them, and with two threads
    where the first training had one.
    """
    digits = tmp_path / "digits"
    shutil.copytree(repository.folder / "data" / "digits", digits)
    for archive in digits.glob("t10k*"):
        archive.unlink()
    paths = {"model": "m.safetensors", "curve": "training.csv", "metrics": "training.json"}
    options = [word for name, file in paths.items() for word in (f"--{name}", str(tmp_path / file))]
    command = [sys.executable, "-m", "stages.train", "mnist", "--digits", str(digits), *options]
    store = f"sqlite:///{tmp_path}/mlflow.db"
    repository.run(*command, MLFLOW_TRACKING_URI=store, OMP_NUM_THREADS="2")
    first = repository.folder / "models" / "mnist.safetensors"
    assert (tmp_path / "m.safetensors").read_bytes() == first.read_bytes()


def test_another_budget_makes_nothing_stale(repository):
    repository.change({"budgets": {"paper": {"test_pairs": 5}}})
    assert "up to date" in repository.dvc("status", "dvc.yaml")
    repository.change({"tasks": {"mnist": {"batch_size": {"paper": 256}}}})
    assert ran(repository.dvc("repro")) == {"check"}  # it looks at every task; nothing else does


def test_a_changed_parameter_runs_only_what_depends_on_it(repository):
    repository.change({"perturb": {"step": 0.125}})
    output = ran(repository.dvc("repro", "--dry"))
    assert output - {"report"} == {"check", "perturb@mnist", "perturb@multimnist"}
    repository.change({"perturb": {"step": 0.05}})


def test_a_mistake_costs_no_result(repository):
    """One line, an exit code, and everything that was there is still there."""
    before = {path: path.read_bytes() for path in (repository.folder / "reports").rglob("*.*")}
    repository.change({"routing": {"iterations": 0}})
    output = repository.dvc("repro", ok=False)
    assert "params.yaml: routing.iterations: got 0, wanted greater than or equal to 1" in output
    assert "Traceback" not in output and ran(output) == {"check"}
    assert {path: path.read_bytes() for path in before} == before
    assert (repository.folder / "models" / "mnist.safetensors").is_file()
    repository.change({"routing": {"iterations": 3}})


def test_the_queue_runs_two_experiments_at_once(repository):
    """`runs.baseline` is one line away; it alone is trained. The queue works in copies that are
    deleted afterwards, the store stays in the repository.
    """
    repository.commit()
    before = len(repository.query("select 1 from runs"))
    baseline = "+runs.baseline={task: multimnist, network: baseline}"
    repository.dvc("exp", "run", "--queue", "--name", "cnn", "-S", baseline)
    repository.dvc("exp", "run", "--queue", "--name", "coarse", "-S", "perturb.step=0.125")
    repository.dvc("queue", "start", "-j", "2")
    deadline = time.time() + 300
    while time.time() < deadline:
        status = repository.dvc("queue", "status")
        if status.count("Success") == 2 or "Failed" in status:
            break
        time.sleep(2)
    told = "".join(repository.dvc("queue", "logs", name) for name in ("cnn", "coarse"))
    assert status.count("Success") == 2, f"{status}\n{told}"
    rows = repository.query("select name, status, artifact_uri from runs")
    assert len(rows) == before + 5 and {status for _, status, _ in rows} == {"FINISHED"}
    places = {name: Path(uri.removeprefix("file://")) for name, _, uri in rows}
    assert (places["baseline (cnn)"] / "checkpoint" / "baseline.safetensors").is_file()
    assert (places["baseline evaluate (cnn)"] / "figures" / "confusion.png").is_file()
    assert (places["mnist perturb (coarse)"] / "perturbation" / "overview.png").is_file()
    assert "cnn" in repository.dvc("exp", "show", "--json", "--no-pager")
    repository.dvc("exp", "apply", "cnn")
    summary = (repository.folder / "reports" / "summary.md").read_text()
    assert "| baseline | baseline | multimnist |" in summary
    assert "failed to load" not in repository.dvc("plots", "show")


def test_the_diffs_fit_a_terminal(repository):
    """160 columns and 40 rows, after the experiment with one more run."""
    show = ["exp", "show", "--only-changed", "--no-pager", "--drop", README_DROP]
    for command in (["params", "diff"], ["metrics", "diff"], show):
        lines = repository.dvc(*command).splitlines()
        assert 2 < len(lines) <= 40 and max(map(len, lines)) <= 160, "\n".join(lines)
    for folder in (repository.folder / "reports" / "runs").iterdir():
        files = [
            json.loads((folder / name).read_text()) for name in ("training.json", "metrics.json")
        ]
        assert sum(len(numbers) for file in files for numbers in file.values()) == 8


def test_a_clone_pulls_what_was_pushed_and_runs_nothing(repository, tmp_path):
    repository.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    repository.commit()
    repository.dvc("push")
    clone = tmp_path / "clone"
    repository.run("git", "clone", "-q", str(repository.folder), str(clone))
    other = copy.copy(repository)
    other.folder = clone
    other.dvc("pull")
    assert ran(other.dvc("repro")) == set()
    assert other.run("git", "status", "--porcelain") == ""
    assert load(clone / "models" / "mnist.safetensors").decoder is not None


def test_experiments_travel_through_a_bare_repository(repository, tmp_path):
    """Pushed by one, pulled and applied by another with what it made: nothing is left to run."""
    team = tmp_path / "team.git"
    repository.run("git", "init", "-q", "--bare", str(team))
    repository.run("git", "remote", "add", "origin", str(team))
    repository.dvc("remote", "add", "--force", "--default", "store", str(tmp_path / "store"))
    repository.run("git", "push", "-q", "origin", "HEAD")
    repository.dvc("push")
    repository.dvc("exp", "push", "origin", "cnn", "coarse")
    other = copy.copy(repository)
    other.folder = tmp_path / "other"
    repository.run("git", "clone", "-q", str(team), str(other.folder))
    other.dvc("remote", "add", "--force", "--default", "store", str(tmp_path / "store"))
    assert "cnn" in other.dvc("exp", "list", "origin", "--all-commits")
    other.dvc("exp", "pull", "origin", "cnn")
    assert "cnn" in other.dvc("exp", "show", "--all-commits", "--json", "--no-pager")
    other.dvc("pull")
    other.dvc("exp", "apply", "cnn")
    assert ran(other.dvc("repro")) == set()
    summary = (other.folder / "reports" / "summary.md").read_text()
    assert "| baseline | baseline | multimnist |" in summary
