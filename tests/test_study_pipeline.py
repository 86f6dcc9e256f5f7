"""The study's own pipeline, in a temporary repository of its own."""

import copy
import sys

import pytest
import yaml

from tests.test_pipeline import Repository, ran


@pytest.fixture
def repository(tmp_path) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    return Repository(folder)


def test_two_machines_train_different_runs_and_join_them(repository, tmp_path):
    """Each its own run and report; git stops at the lock and the report, `stages.join` goes on.
    Then both are done for both, and what is trained on both sides is refused.
    """
    alike = {"task": "multimnist", "network": "capsnet", "examples": 64}
    runs = {"one": {**alike, "seed": 1}, "other": {**alike, "seed": 2}}
    study = repository.folder / "study" / "params.yaml"
    study.write_text(yaml.safe_dump({"budget": "quick", "runs": runs}, sort_keys=False))
    repository.commit()
    clone = copy.copy(repository)
    clone.folder = tmp_path / "clone"
    repository.run("git", "clone", "-q", str(repository.folder), str(clone.folder))
    for machine, name in ((repository, "one"), (clone, "other")):
        machine.run("git", "config", "user.name", "Test")
        machine.run("git", "config", "user.email", "test@example.org")
        machine.dvc("repro", f"study/dvc.yaml:score@{name}")
        machine.dvc("repro", "--single-item", "study/dvc.yaml:report")
        machine.commit()
    told = clone.run(sys.executable, "-m", "stages.join", ok=False)
    assert "join: study/dvc.lock: no merge of two sides is under way" in told
    told = clone.run("git", "pull", "-q", "--no-rebase", ok=False)
    clone.run(sys.executable, "-m", "stages.join")
    assert ran(clone.dvc("repro", "--single-item", "study/dvc.yaml:report"))
    clone.commit()
    assert "2 of " in (clone.folder / "reports" / "study" / "study.md").read_text()
    repository.run("git", "pull", "-q", str(clone.folder), "HEAD")
    for machine in (repository, clone):
        assert ran(machine.dvc("repro", "--allow-missing", "study/dvc.yaml:report")) == set()


def test_the_study_trains_what_is_missing_and_a_clone_needs_no_weights(repository, tmp_path):
    """Two runs, one with all its figures, then one run more: it alone is trained. In a clone
    without weights or data the finished runs are finished."""
    alike = {"task": "multimnist", "network": "capsnet", "examples": 64}
    runs = {"r3_seed1": {**alike, "seed": 1}, "night": {**alike, "iterations": 1, "seed": 1}}
    study = repository.folder / "study" / "params.yaml"
    study.write_text(yaml.safe_dump({"budget": "quick", "runs": runs}, sort_keys=False))
    output = ran(repository.dvc("repro", "study/dvc.yaml"))
    names = ("train@r3_seed1", "train@night", "score@r3_seed1", "score@night", "show@night")
    assert {f"study/dvc.yaml:{name}" for name in (*names, "tell@night", "report")} <= output
    told = (repository.folder / "reports" / "study" / "night.md").read_text()
    assert "# night: capsnet on multimnist, 64 images shown" in told
    assert "One pass, so every coupling is even" in told
    assert "](night/figures/routing.png)" in told
    for figure in ("figures/reconstructions.png", "perturbation/usual_overview.png"):
        assert (repository.folder / "reports" / "study" / "night" / figure).is_file()
    runs["r3_seed2"] = {**alike, "seed": 2}
    study.write_text(yaml.safe_dump({"budget": "quick", "runs": runs}, sort_keys=False))
    stages = {f"study/dvc.yaml:{name}" for name in ("train@r3_seed2", "score@r3_seed2", "report")}
    assert ran(repository.dvc("repro", "study/dvc.yaml")) == stages
    report = (repository.folder / "reports" / "study" / "study.md").read_text()
    assert (
        "Budget `quick`: 3 of 3 networks" in report
        and "| CapsNet, r = 1 | CapsNet, r = 3 |" in report
    )
    assert "one network each, the same 60 examples" in report
    (repository.folder / "reports" / "study" / "study.md").unlink()
    assert ran(repository.dvc("repro", "--single-item", "study/dvc.yaml:report")) == {
        "study/dvc.yaml:report"
    }
    repository.commit()
    clone = tmp_path / "clone"
    repository.run("git", "clone", "-q", str(repository.folder), str(clone))
    other = copy.copy(repository)
    other.folder = clone
    assert ran(other.dvc("repro", "--allow-missing", "study/dvc.yaml")) == set()
    assert other.run("git", "status", "--porcelain") == ""
