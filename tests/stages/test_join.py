"""The lock of the study, joined in the middle of a merge; with DVC in test_study_pipeline.py."""

import subprocess

import pytest
import yaml

from stages import join

BEFORE = {"train@a": 1, "train@b": 1, "report": 1}


@pytest.fixture
def merge(tmp_path, monkeypatch):
    """A repository in which two sides changed the lock; the second one is merged into the first."""

    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=T", "-c", "user.email=t@e.org", *words], check=False
        )

    def commit(stages):
        lock = tmp_path / "study" / "dvc.lock"
        lock.parent.mkdir(exist_ok=True)
        lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
        git("add", "-A")
        git("commit", "-qm", "Lock")

    def start(ours, theirs):
        git("init", "-q", "-b", "main")
        commit(BEFORE)
        git("checkout", "-qb", "other")
        commit(theirs)
        git("checkout", "-q", "main")
        commit(ours)
        git("merge", "-q", "other")
        return tmp_path / "study" / "dvc.lock"

    monkeypatch.chdir(tmp_path)
    return start


def test_each_side_is_taken_where_it_changed_something(merge):
    """Done again, added or taken away by one side; the report is made anew in any case."""
    lock = merge(
        {"train@a": 2, "train@b": 1, "report": 2}, {"train@c": 3, "train@a": 1, "report": 3}
    )
    join.main()
    found = yaml.safe_load(lock.read_text())["stages"]
    assert found == {"train@a": 2, "train@c": 3, "report": 2}


def test_what_both_sides_did_differently_is_refused(merge):
    lock = merge(BEFORE | {"train@a": 2, "train@b": 2}, BEFORE | {"train@a": 3, "train@b": 2})
    before = lock.read_text()
    with pytest.raises(ValueError, match="both sides did train@a: nothing is changed"):
        join.main()
    assert lock.read_text() == before
