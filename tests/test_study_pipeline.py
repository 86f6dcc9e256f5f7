"""The study's own DVC project, in a temporary repository of its own."""

import copy
import json
import re

import yaml

from tests.test_pipeline import Repository, ran


def test_the_study_trains_what_is_missing_and_a_clone_needs_no_weights(tmp_path):
    """Two runs, one with all its figures, then one run more: it alone is trained. Changed code
    makes no run stale. In a clone without weights or data the finished runs are finished.
    """
    (tmp_path / "repository").mkdir()
    repository = Repository(tmp_path / "repository")
    study = repository.folder / "study"
    (study / "dvc.lock").unlink()
    alike = {"budget": "quick", "task": "multimnist", "network": "capsnet", "examples": 64}
    runs = {"r3_seed1": {**alike, "seed": 1}, "gpu": {**alike, "iterations": 1, "seed": 1}}

    def write():
        tree = {"budget": "quick", "runs": runs}
        (study / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))

    write()
    names = {f"{stage}@{run}" for stage in ("train", "evaluate") for run in runs}
    assert ran(repository.dvc("--cd", "study", "repro")) == names | {
        "download",
        "show@gpu",
        "report",
    }
    reports = repository.folder / "reports" / "study"
    told = (reports / "gpu.md").read_text()
    assert "# gpu: capsnet on multimnist, 64 images shown" in told
    for figure in ("figures/reconstructions.png", "perturbation/two_sigma_overview.png"):
        assert (reports / "gpu" / figure).is_file() and f"](gpu/{figure})" in told
    record = json.loads((reports / "runs" / "gpu" / "record.json").read_text())
    assert record["examples"] == 64 and all(record.values())
    assert record["commit"] == repository.run("git", "rev-parse", "--short", "HEAD").strip()
    assert (repository.folder / "mlflow.db").exists() and not (study / "mlflow.db").exists()

    with open(repository.folder / "capsnet" / "learning" / "training.py", "a") as code:
        code.write("# changed\n")
    runs["r3_seed2"] = {**alike, "seed": 2}
    write()
    new = {"train@r3_seed2", "evaluate@r3_seed2", "report"}
    assert ran(repository.dvc("--cd", "study", "repro")) == new
    report = (reports / "study.md").read_text()
    assert "3 of 3 networks" in report
    assert re.search(rf"\| r3_seed2 +\| {record['commit']} \+ changes \|", report)

    repository.commit()
    assert "study" not in repository.dvc("dag") + repository.dvc("status")
    clone = copy.copy(repository)
    clone.folder = tmp_path / "clone"
    repository.run("git", "clone", "-q", str(repository.folder), str(clone.folder))
    assert ran(clone.dvc("--cd", "study", "repro", "--allow-missing")) == set()
    assert clone.run("git", "status", "--porcelain") == ""
