"""A training's inputs: a changed parameter, file of code, archive or version is another input."""

import numba
import torch
import yaml

from stages import inputs
from stages.inputs import inputs_of
from tests.interruption import make_workspace


def test_inputs_are_those_of_dvc_yaml_and_the_versions(tmp_path, monkeypatch):
    make_workspace(tmp_path, steps=2)
    monkeypatch.chdir(tmp_path)
    found = inputs_of("train", "mnist", tmp_path / "digits")
    assert found["torch"] == torch.__version__ and found["numba"] == numba.__version__
    assert found["seed"] == "1" and found["tasks.mnist.training_examples.quick"] == "8"
    code = {"stages/train.py", "capsnet/training.py", "capsnet/nn/routing.py"}
    assert code | {"digits/train-images-idx3-ubyte.gz"} <= found.keys()
    # How often a state is saved, other tasks and what later stages read change no training.
    assert not [name for name in found if name.startswith(("train.", "perturb", "tasks.multi"))]


def test_each_changed_input_shows(tmp_path, monkeypatch):
    make_workspace(tmp_path, steps=2)
    monkeypatch.chdir(tmp_path)
    before = inputs_of("train", "mnist", tmp_path / "digits")
    tree = yaml.safe_load((tmp_path / "params.yaml").read_text())
    tree["routing"]["iterations"] = 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    with open(tmp_path / "digits" / "train-labels-idx1-ubyte.gz", "ab") as archive:
        archive.write(b"0")
    monkeypatch.setattr(inputs.torch, "__version__", "0")
    after = inputs_of("train", "mnist", tmp_path / "digits")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"routing.iterations", "digits/train-labels-idx1-ubyte.gz", "torch"}
