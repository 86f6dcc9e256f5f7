"""A mistake in params.yaml costs no result: it is found before DVC deletes any."""

import sys
from pathlib import Path

import pytest
import yaml

from stages import check

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_affnist_that_is_not_there_is_found(tmp_path, monkeypatch):
    tree = yaml.safe_load(PARAMS.read_text()) | {"budget": "quick"}
    (copy := tmp_path / "copy").mkdir()  # of `dvc exp run --temp`
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["check"])
    tree["data"]["affnist"] = "affnist.mat"  # relative to the repository
    (copy / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match=r"^params.yaml: data.affnist: there is no file"):
        check.main()
    (tmp_path / "affnist.mat").touch()
    check.main()
    assert (copy / "data" / "params.ok").exists()
