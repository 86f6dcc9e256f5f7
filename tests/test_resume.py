"""A resumed training ends as an uninterrupted one and never starts from another's state."""

import os
from functools import partial
from unittest.mock import Mock

import pytest
import torch

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES
from capsnet.data.batches import evaluation_batches, training_draws
from capsnet.learning import resume
from capsnet.learning.resume import SavedState, inputs_of, only_one
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.compact import CompactCapsNet
from tests.training import SHIFTED, TASK, make_digits, make_model, make_trainer

STEPS, INTERVALS = 9, 3
INPUTS = {"parameters": "3", "code": "d41d8c"}


def test_inputs_are_parameters_data_code_and_versions(tmp_path, monkeypatch):
    """Each changes its own digest. Parameters and archives that change no weight change none."""
    for name in (*ARCHIVES["train"], *ARCHIVES["test"]):
        (tmp_path / name).write_bytes(b"digits")
    parameters = {"seed": 1, "routing": {"iterations": 3}, "train": {"save_every": 60}}
    before = inputs_of(parameters, tmp_path)

    def changed(**changes: object) -> set[str]:
        found = inputs_of(parameters | changes, tmp_path)
        return {name for name in before if before[name] != found[name]}

    (tmp_path / ARCHIVES["test"][0]).write_bytes(b"others")
    assert changed(train={}, perturb_examples=9) == set() and changed(seed=2) == {"parameters"}
    (tmp_path / ARCHIVES["train"][1]).write_bytes(b"others")
    monkeypatch.setattr(resume, "version", lambda name: "0")
    monkeypatch.setattr(resume, "SOURCES", resume.SOURCES[1:])
    assert changed() == {"data", "code", "versions"}


class Stopped(Exception):
    pass


class WithDropout(CapsNet):
    """Draws from torch's generator in every step, as the baseline does."""

    def forward(self, images):
        return super().forward(torch.nn.functional.dropout(images))


def train(folder, stop_after=None, network=CapsNet, inputs=INPUTS):
    """Train as stage `train` does. Return the weights and the log records without times."""
    digits = make_digits()
    trainer = make_trainer(make_model(network), digits)
    saved = SavedState(folder, "run", inputs, every=0)
    saved.load(trainer)

    def after_step(trainer):
        saved.save_if_due(trainer)
        if trainer.progress.step == stop_after:
            raise Stopped

    def examples(seed: int, last: bool):
        return evaluation_batches(digits, seed=seed, num_examples=8, batch_size=5, **TASK)

    steps = range(trainer.progress.step, STEPS)
    records = trainer.fit(
        training_draws(digits, steps, seed=1, batch_size=4, **SHIFTED),
        num_steps=STEPS,
        num_intervals=INTERVALS,
        validation_batches=partial(examples, 0),
        train_eval_batches=partial(examples, 1),
        after_step=after_step,
    )
    list(records)
    saved.remove()
    records = [row._replace(seconds=0, images_per_second=0) for row in trainer.history]
    return trainer.model.state_dict(), records


@pytest.mark.parametrize("network", [CapsNet, WithDropout, CompactCapsNet])
def test_resuming_gives_the_same_weights_and_records(tmp_path, network):
    """Stopped after the first step, at the end of an interval, within one and after the last."""
    wanted, wanted_rows = train(tmp_path, network=network)
    for stop_after in (1, 3, 4, STEPS):
        with pytest.raises(Stopped):
            train(tmp_path, stop_after, network)
        found, rows = train(tmp_path, network=network)
        assert rows == wanted_rows
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor), f"{name} after step {stop_after}"
        assert not [*tmp_path.iterdir()]  # removed when all is done


def test_other_inputs_start_anew_and_say_why(tmp_path, capsys):
    with pytest.raises(Stopped):
        train(tmp_path, 4)
    wanted, _ = train(tmp_path / "elsewhere")
    found, rows = train(tmp_path, inputs=INPUTS | {"parameters": "1"})
    assert len(rows) == INTERVALS
    assert torch.equal(found["convolution.weight"], wanted["convolution.weight"])
    told = capsys.readouterr().out
    assert "run: starts anew" in told and "(interrupted after step 4)" in told
    assert "other inputs: parameters\n" in told
    assert len([*tmp_path.glob("run-*")]) == 1  # the other's state is still there for it


@pytest.mark.parametrize("damage", ["bit", "half", "empty"])
def test_a_damaged_state_starts_anew(tmp_path, capsys, damage):
    with pytest.raises(Stopped):
        train(tmp_path, 4)
    [path] = tmp_path.glob("run-*/state.safetensors")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes({"bit": data, "half": data[: len(data) // 2], "empty": b""}[damage])
    train(tmp_path)
    assert "run: starts anew: " in capsys.readouterr().out


def test_a_state_that_is_not_finite_leaves_the_last_good_one(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, 4)
    [path] = tmp_path.glob("run-*/state.safetensors")
    good = path.read_bytes()
    trainer = make_trainer(make_model(), make_digits())
    saved = SavedState(tmp_path, "run", INPUTS, every=0)
    saved.load(trainer)
    trainer.model.convolution.weight.data[0] = float("nan")
    saved.save_if_due(trainer)
    assert path.read_bytes() == good
    with pytest.raises(ValueError, match="holds no network"):
        checkpoint.load(path)


def test_a_full_disk_is_reported_once_and_training_continues(tmp_path, monkeypatch, capsys):
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(os, "fsync", full)
    _, rows = train(tmp_path)
    told = capsys.readouterr().err
    assert len(rows) == INTERVALS
    assert told.count("No space left on device") == 1 and "resumes from an older step" in told


def test_a_second_process_for_the_same_output_is_refused(tmp_path):
    with only_one(tmp_path, tmp_path / "net"):
        with only_one(tmp_path, tmp_path / "other"):
            pass
        with (
            pytest.raises(ValueError, match=r"another process is training .*net: wait"),
            only_one(tmp_path, tmp_path / "net"),
        ):
            pass
