"""The programme for a GPU: from end to end at toy size on the CPU, in pieces, real processes."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml

from capsnet import checkpoint
from capsnet.benchmark import kernels
from capsnet.config import load
from capsnet.data.archives import ARCHIVES
from capsnet.nn.capsnet import CapsNet
from stages import gpu, packing
from tests.interruption import ROOT, make_workspace

RUNS = {
    "pairs": {"task": "multimnist", "network": "capsnet", "seed": 2, "validation_fraction": 0.0},
    "wide": {"task": "mnist40", "network": "convnet", "stop_at_error": 100.0},
}


def programme(folder, *options):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DVC_ROOT": str(folder),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/runs.db",
    }
    command = [sys.executable, "-m", "stages.gpu", "--also", "rows.yaml", "--digits", "digits"]
    done = subprocess.run(
        [*command, "--small", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def lent(tmp_path_factory):
    """A machine where all is done, after a call that had no time to train."""
    folder = tmp_path_factory.mktemp("lent")
    make_workspace(folder, steps=3)
    for name, file in zip(ARCHIVES["train"], ARCHIVES["test"], strict=True):
        shutil.copy(folder / "digits" / name, folder / "digits" / file)
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["budgets"]["quick"] |= {"test_pairs": 10, "study_examples": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (folder / "rows.yaml").write_text(yaml.safe_dump({"budget": "quick", "runs": RUNS}))
    code, told, error = programme(folder, "--minutes", "0.9")  # the kernel alone, or the benchmark
    assert code == 0 and "start again to go on" in told, error
    assert measured(folder, "kernels.csv").exists() and not (folder / "gpu" / "runs").exists()
    code, told, error = programme(folder)
    assert code == 0 and "gpu: all is done" in told, error
    return folder


def measured(folder, name):
    [found] = (folder / "gpu" / "measured").glob(f"*/{name}")
    return found


def work(folder, name):
    [found] = (folder / "gpu" / "work").glob(f"{name}-*")
    return found


@pytest.fixture
def home(lent, tmp_path):
    """Another machine, with the same data and parameters and what was packed."""
    for name in ("digits", "gpu/runs"):
        shutil.copytree(lent / name, tmp_path / name)
    for name in ("params.yaml", "rows.yaml"):
        shutil.copy(lent / name, tmp_path / name)
    return tmp_path


def test_every_way_of_the_kernel_is_compared(lent):
    path = measured(lent, "kernels.csv")
    assert kernels.is_whole(path, small=True) and not kernels.is_whole(path, small=False)
    assert kernels.worst(path) < kernels.LIMIT and pd.read_csv(path)["same_bits"].all()
    assert measured(lent, "benchmark.md").exists()


def test_without_validation_digits_the_curve_has_the_error_on_those_trained_on(lent):
    curve = pd.read_csv(work(lent, "pairs") / "training.csv")
    assert curve["training_error"].notna().all() and curve["validation_error"].isna().all()


def test_one_gradient_that_is_no_number_is_a_wrong_kernel(lent, tmp_path):
    table = pd.read_csv(measured(lent, "kernels.csv"))
    table.loc[3, "difference"] = float("nan")
    table.to_csv(tmp_path / "kernels.csv", index=False)
    assert not kernels.worst(tmp_path / "kernels.csv") < kernels.LIMIT


def test_what_is_packed_is_small_and_another_call_has_nothing_to_do(lent):
    packed = {path.name for path in (lent / "gpu" / "runs").iterdir()}
    assert packed == {"pairs.json", "pairs.1.bin", "wide.json", "wide.1.bin"}
    about = json.loads((lent / "gpu" / "runs" / "wide.json").read_text())
    assert "robustness.csv" in about["files"]
    code, told, error = programme(lent)
    assert code == 0 and len(told.splitlines()) == 2 and not error
    code, told, error = programme(lent, "--runs", "wide,narrow")
    assert code == 1 and error == "gpu: --runs: got 'narrow', wanted some of pairs, wide\n"


def test_what_other_code_or_another_card_measured_is_not_gone_by(monkeypatch):
    before = gpu.measured(small=False)
    assert "capsnet/nn/routing_triton.py" in before and "capsnet/device.py" in before
    monkeypatch.setattr(gpu, "describe", lambda device: "another card")
    after = gpu.measured(small=False)
    assert before != after and gpu.measured(small=True) != after


def test_a_run_that_fails_does_not_keep_the_others_from_theirs(tmp_path, monkeypatch, capsys):
    rows = {"budget": load().budget, "runs": RUNS}
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump(rows))
    done = []

    def work(params, name, *_):
        if name == "pairs":
            raise ValueError("the loss is not finite")
        done.append(name)

    monkeypatch.setattr(gpu, "measure", lambda *_: None)
    monkeypatch.setattr(gpu, "work", work)
    monkeypatch.setattr(sys, "argv", ["gpu", "--also", str(tmp_path / "rows.yaml")])
    with pytest.raises(ValueError, match="all else is done, but not pairs: see above"):
        gpu.main()
    assert done == ["wide"] and capsys.readouterr().err == "pairs: the loss is not finite\n"


def test_what_other_parameters_packed_is_not_all_done(lent):
    """Another epsilon for the optimizer: the runs are begun anew, for which there is no time."""
    before = (lent / "params.yaml").read_text()
    (lent / "params.yaml").write_text(before.replace("epsilon: 1.0e-08", "epsilon: 1.0e-07"))
    assert (lent / "params.yaml").read_text() != before
    code, told, error = programme(lent, "--minutes", "0.5")
    (lent / "params.yaml").write_text(before)
    assert code == 0 and "start again to go on" in told, error


def test_an_evaluation_that_was_cut_off_is_made_again(lent):
    """Its headlines are written first, so that they say nothing of the tables that follow."""
    packed = lent / "gpu" / "runs" / "wide.json"
    packed.unlink()
    next(work(lent, "wide").glob("*/robustness.csv")).unlink()
    code, _, error = programme(lent)
    assert code == 0 and "robustness.csv" in json.loads(packed.read_text())["files"], error


def test_a_training_that_is_cut_off_goes_on_in_the_next_call(tmp_path, monkeypatch, capfd):
    make_workspace(tmp_path, steps=40_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0)
    for name, value in (("PYTHONPATH", ROOT), ("DVC_ROOT", tmp_path), ("OMP_NUM_THREADS", 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    files = {name: tmp_path / name for name in ("model", "curve", "metrics")}
    training = ["stages.train", "mnist", "--digits", "digits", *gpu.options(files)]
    for call in range(1, 6):  # two, but where a machine is slow to begin
        with pytest.raises(TimeoutError):
            gpu.start(training, time.monotonic() + 10 * call)
        if "goes on after step" in capfd.readouterr().out:
            break
    else:
        pytest.fail("no call went on where one before it was cut off")
    assert not files["model"].exists()


def test_without_the_kernel_it_is_neither_compared_nor_measured(capsys):
    params = SimpleNamespace(routing=SimpleNamespace(implementation="reference"))
    gpu.measure(params, None, 0.0)
    assert "neither compared nor measured" in capsys.readouterr().out


def test_a_large_network_is_packed_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MOST_BYTES", 1000)
    sizes = dict(image_size=28, conv_channels=4, primary_types=1, decoder_sizes=[8])
    trained, model = tmp_path / "trained.safetensors", tmp_path / "network.safetensors"
    checkpoint.save(CapsNet(**sizes), trained, network="capsnet", arguments=sizes)
    packing.round_off(trained, model)
    packing.pack("net", model, [], {}, tmp_path / "net.json")
    parts = list(tmp_path.glob("net.*.bin"))
    assert len(parts) > 1 and all(part.stat().st_size <= 1000 for part in parts)
    _, data = packing.unpacked(tmp_path / "net.json")
    (tmp_path / "halves").write_bytes(data)
    halves = checkpoint.load(tmp_path / "halves").float().state_dict()
    for name, tensor in checkpoint.load(model).state_dict().items():
        assert torch.equal(tensor, halves[name])
    parts[0].write_bytes(parts[0].read_bytes()[::-1])
    with pytest.raises(ValueError, match="not whole: bring them again"):
        packing.unpacked(tmp_path / "net.json")


def test_taken_in_it_is_the_network_that_was_tested(home, lent):
    code, told, error = programme(home, "--take", "gpu/runs")
    assert code == 0 and told.count("taken from") == 2, error
    for name in RUNS:
        model = home / "models" / "study" / f"{name}.safetensors"
        tested = work(lent, name) / "network.safetensors"
        assert model.read_bytes() == tested.read_bytes()
        checkpoint.load(model)
        folder = home / "reports" / "study" / "runs" / name
        for file in ("training.csv", "metrics.json", "examples.csv"):
            [there] = work(lent, name).rglob(file)
            assert (folder / file).read_text() == there.read_text()
        assert json.loads((folder / "origin.json").read_text())["hardware"]
    with sqlite3.connect(home / "runs.db") as store:
        found = store.execute("select name, status from runs").fetchall()
    assert sorted(found) == [("pairs", "FINISHED"), ("wide", "FINISHED")]
    code, told, error = programme(home, "--take", "gpu/runs")
    assert code == 0 and told.count("is here already") == 2, error
    with sqlite3.connect(home / "runs.db") as store:
        assert len(store.execute("select name from runs").fetchall()) == 2


def test_other_parameters_or_damage_are_refused_in_one_line(home, lent):
    rows = yaml.safe_load((home / "rows.yaml").read_text())
    rows["runs"]["pairs"]["seed"] = 3
    (home / "rows.yaml").write_text(yaml.safe_dump(rows))
    code, told, error = programme(home, "--take", "gpu/runs")
    assert code == 1 and error.count("\n") == 1 and told == "wide: taken from gpu/runs/wide.json\n"
    assert "pairs.json: made with other runs.pairs: take it at commit" in error
    shutil.rmtree(home / "reports")
    shutil.rmtree(home / "models")
    (home / "gpu" / "runs" / "wide.json").unlink()
    shutil.copy(home / "gpu" / "runs" / "wide.1.bin", home / "gpu" / "runs" / "pairs.1.bin")
    code, told, error = programme(home, "--take", "gpu/runs")
    assert code == 1 and "not whole: bring them again" in error and error.count("\n") == 1
    packed = home / "gpu" / "runs" / "pairs.json"
    shutil.copy(lent / "gpu" / "runs" / "pairs.1.bin", packed.with_name("pairs.1.bin"))
    packed.write_text(packed.read_text().replace("error", "terror", 1))  # a table, say
    code, told, error = programme(home, "--take", "gpu/runs")
    assert code == 1 and "not whole: bring them again" in error
    code, told, error = programme(home, "--take", "digits")
    assert code == 1 and error.startswith("gpu: digits: no packed run")
    assert not (home / "reports").exists() and not (home / "models").exists()
