"""A mistake in params.yaml costs no result: it is found before DVC deletes any."""

import sys

import pytest
import yaml

from stages import check
from tests.interruption import make_workspace


@pytest.mark.parametrize(
    "launcher, wanted",
    [
        ("torchrun --nproc 2", "launcher: got 'torchrun --nproc 2': torchrun: ambiguous option"),
        (
            "torchrun --nnodes 3 --nproc-per-node 2",
            "tasks.mnist.batch_size.quick: got 4, wanted a multiple of 6, the processes of launch",
        ),
    ],
)
def test_a_launcher_that_cannot_train_is_found(tmp_path, monkeypatch, launcher, wanted):
    with pytest.raises(ValueError, match=r"^params\.yaml: ") as refused:
        checked(tmp_path, monkeypatch, launcher)
    assert wanted in str(refused.value) and not (tmp_path / "ok").exists()


@pytest.mark.parametrize(
    "launcher", ["torchrun --standalone --nproc-per-node 2", "torchrun --nproc-per-node gpu"]
)
def test_a_launcher_that_can_train_is_sound(tmp_path, monkeypatch, launcher):
    checked(tmp_path, monkeypatch, launcher)
    assert (tmp_path / "ok").exists()


def checked(folder, monkeypatch, launcher: str) -> None:
    make_workspace(folder, steps=2)
    tree = yaml.safe_load((folder / "params.yaml").read_text()) | {"launcher": launcher}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["check", "--out", "ok"])
    check.main()
