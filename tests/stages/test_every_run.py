"""Every task and every network goes through all stages, as dvc.yaml calls them, at tiny size.

The stages run in this process: nearly all the time of a stage of this size is its start-up.
"""

import json
import runpy
import shlex
import sys
import traceback
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from scipy.io import savemat
from torch import nn

from capsnet import tracking
from capsnet.data.archives import ARCHIVES, write_idx
from capsnet.learning.log import repeated
from capsnet.nn import baseline
from stages import build

ROOT = Path(__file__).parents[2]
STEM = {"channels": [8, 8], "kernels": [5, 3], "strides": [2, 2], "primary_kernel": 3}
SIZES = {"conv_channels": 4, "primary_types": 2, "decoder_sizes": [8], "stem": STEM}
FEW = {"test_pairs": 10, "study_examples": 2, "perturb_examples": 1, "network": SIZES}
RUNS = {  # every task and every network
    "capsnet": ("mnist40", "capsnet"),
    "compact": ("multimnist", "compact"),
    "compact_attention": ("mnist", "compact_attention"),
    "compact_convnet": ("multimnist", "compact_convnet"),
    "efficient": ("multimnist", "efficient"),
    "convnet": ("mnist", "convnet"),
    "cnn": ("mnist", "baseline"),
}
unpickled: list[str] = []


def look_for_pickles(event: str, arguments: tuple) -> None:
    """Python tells of every name that a pickle asks for. numba's own cache, which lies beside the
    code as Python's does, is the one place where pickles are read.
    """
    if event == "pickle.find_class":
        stack = [frame.filename for frame in traceback.extract_stack()]
        if any("stages" in file for file in stack) and not any("numba" in file for file in stack):
            unpickled.append(f"{arguments} in {stack[-2]}")


sys.addaudithook(look_for_pickles)


def write_params(folder: Path, runs: dict, /, **data: object) -> None:
    """The repository's params.yaml with tiny networks and trainings of one step."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree |= {"budget": "quick", "runs": runs}
    tree["data"] |= data
    tree["optimizer"]["intervals"] = 1
    few = {"batch_size": 4, "training_examples": dict.fromkeys(tree["tasks"], 4)}
    tree["budgets"]["quick"] |= FEW | {"compact": tree["budgets"]["quick"]["compact"] | few}
    for task in tree["tasks"].values():
        task["training_examples"]["quick"], task["batch_size"]["quick"] = 4, 4
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Six digits of each class in black and white noise, two of them for the test, and a
    params.yaml with every run.
    """
    folder = tmp_path_factory.mktemp("workspace")
    random = np.random.default_rng(0)
    (folder / "data" / "digits").mkdir(parents=True)
    for split, count in (("train", 40), ("test", 20)):
        images, labels = (folder / "data" / "digits" / name for name in ARCHIVES[split])
        write_idx(images, random.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(labels, np.arange(count) % 10)
    fields = {"image": np.zeros((1600, 4), np.uint8), "label_int": np.ones((1, 4), np.uint8)}
    savemat(folder / "affnist.mat", {"affNISTdata": fields})
    runs = {run: {"task": task, "network": net} for run, (task, net) in RUNS.items()}
    # With a smaller fraction there is no pair of classes for the validation.
    write_params(folder, runs, affnist="affnist.mat", validation_fraction=0.5)
    row = {"budget": "quick", "task": "multimnist", "network": "capsnet", "examples": 4}
    tree = {"budget": "quick", "runs": {"gpu": row, "later": row}}
    (folder / "study" / "data").mkdir(parents=True)
    (folder / "study" / "params.yaml").write_text(yaml.safe_dump(tree))
    (folder / "study" / "data" / "digits").symlink_to(folder / "data" / "digits")
    return folder


def go_through(monkeypatch, name: str, run: str = "", project: str = ".") -> None:
    """Run the commands of dvc.yaml here, then look for every output that it declares."""
    found = yaml.safe_load((ROOT / project / "dvc.yaml").read_text())["stages"][name]
    text = yaml.safe_dump(found.get("do", found))
    names = {"key": run, "item": run, "budget": "quick"}
    names |= {"rows": "reports/study/runs", "models": "models/study"}
    for key, value in names.items():
        text = text.replace(f"${{{key}}}", value)
    stage = yaml.safe_load(text.replace("../", ""))
    monkeypatch.setattr(tracking, "track", lambda *_, **__: nullcontext(Mock()))
    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
    for command in [stage["cmd"]] if isinstance(stage["cmd"], str) else stage["cmd"]:
        words = shlex.split(command.partition(" -m ")[2].removesuffix("'"))  # of sh -c '...'
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_module(words[0], run_name="__main__")
    for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
        path = Path(out if isinstance(out, str) else next(iter(out)))
        if path != Path("reports/study/figures"):  # empty where no two rows are compared
            assert path.is_file() or any(path.iterdir()), f"{name}@{run}: {path}"


def few_layers(image_size: int, channels: int, classes: int, dropout: float) -> list[nn.Module]:
    """In the place of the baseline's 35 million weights."""
    hidden = baseline._convolution(channels, 4, 5)
    return [*hidden, nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * image_size**2, classes)]


@pytest.mark.parametrize("run", RUNS)
def test_a_run_goes_through(workspace, monkeypatch, capsys, run):
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(build, "repeated", partial(repeated, every=0.01))
    monkeypatch.setattr(baseline, "_mnist_layers", few_layers)
    if run != "capsnet":  # whose figures are drawn, as are those of the study's row
        monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)
    for name in ("train", "evaluate", "perturb"):
        go_through(monkeypatch, name, run)
    printed = capsys.readouterr().out
    for progress in ("% of 4 images, ", "evaluating robustness\n", "drawing the perturbation"):
        assert f"{run}: " in printed and progress in printed
    table = Path(f"reports/quick/runs/{run}/robustness.csv").read_text()
    assert ("\naffnist," in table) == (RUNS[run][0] == "mnist40")


def test_the_report_takes_them_all(workspace, monkeypatch):
    """After the runs above: a row for each, and every link leads to a file."""
    monkeypatch.chdir(workspace)
    go_through(monkeypatch, "check")
    go_through(monkeypatch, "report")
    summary = Path("reports/quick/summary.md")
    text = summary.read_text()
    for run in RUNS:
        assert f"| {run} " in text
    for target in (part.split(")")[0] for part in text.split("](")[1:]):
        assert (summary.parent / target).is_file(), target


def test_training_again_gives_the_same_bytes_without_the_test_split(workspace, monkeypatch):
    """With two threads instead of one."""
    monkeypatch.chdir(workspace)
    model, threads = Path("models/capsnet.safetensors"), torch.get_num_threads()
    before = model.read_bytes()
    for archive in Path("data/digits").glob("t10k*"):
        archive.rename(archive.name)
    torch.set_num_threads(2)
    go_through(monkeypatch, "train", "capsnet")
    torch.set_num_threads(threads)
    for archive in Path().glob("t10k*"):
        archive.rename(f"data/digits/{archive.name}")
    assert model.read_bytes() == before


def test_a_row_of_the_study(workspace, monkeypatch):
    """Its record, its page, and a report that counts the runs that are done."""
    monkeypatch.chdir(workspace)
    for name in ("train", "evaluate", "show", "report"):
        go_through(monkeypatch, name, "gpu", "study")
    record = json.loads(Path("reports/study/runs/gpu/record.json").read_text())
    assert record["examples"] == 4 and all(record.values())
    assert "](gpu/figures/reconstructions.png)" in Path("reports/study/gpu.md").read_text()
    assert "1 of 2 networks" in Path("reports/study/study.md").read_text()


def test_no_stage_read_a_pickle():
    assert unpickled == []
    exec(compile("import pickle; pickle.loads(pickle.dumps(dict))", "stages/some.py", "exec"), {})
    assert len(unpickled) == 1  # the hook works
