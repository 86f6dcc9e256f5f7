"""The study's own pipeline, in a temporary repository of its own."""

import copy

import pytest
import yaml

from tests.test_pipeline import Repository, ran


@pytest.fixture
def repository(tmp_path) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    return Repository(folder)


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
