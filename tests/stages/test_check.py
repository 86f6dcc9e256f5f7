"""A mistake in params.yaml costs no result: it is found before DVC deletes any."""

import sys

import pytest
import yaml

from stages import check
from tests.interruption import make_workspace


def test_affnist_that_is_not_there_is_found(tmp_path, monkeypatch):
    make_workspace(tmp_path, steps=2)
    tree = yaml.safe_load((tmp_path / "params.yaml").read_text())
    (copy := tmp_path / "copy").mkdir()  # of `dvc exp run --temp`
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["check"])
    for affnist in ("affnist.mat", "data"):  # relative to the repository
        tree["data"]["affnist"] = affnist
        (copy / "params.yaml").write_text(yaml.safe_dump(tree))
        if affnist == "data":
            check.main()
        else:
            with pytest.raises(ValueError, match=r"^params.yaml: data.affnist: there is no file"):
                check.main()
        assert (copy / "data" / "params.ok").exists() == (affnist == "data")
