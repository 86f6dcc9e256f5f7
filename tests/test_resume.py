"""A training that is stopped and goes on ends as one that was not, and never from foreign state."""

import os
from functools import partial

import pytest
import torch

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES
from capsnet.data.batches import compose_batch, evaluation_batches, training_draws
from capsnet.data.mnist import Digits
from capsnet.learning import resume
from capsnet.learning.resume import SavedState, inputs_of, only_one
from capsnet.learning.training import Trainer
from capsnet.losses import margin_loss, weighted_losses
from capsnet.nn.capsnet import CapsNet

TASK = dict(num_digits=2, image_size=20, max_shift=2)
STEPS, INTERVALS = 9, 3
INPUTS = {"parameters": "3", "code": "d41d8c"}


def test_inputs_are_parameters_data_code_and_versions(tmp_path, monkeypatch):
    """Each changes its own digest; how often a state is saved, what is perturbed and the test
    archives change none.
    """
    for name in (*ARCHIVES["train"], *ARCHIVES["test"]):
        (tmp_path / name).write_bytes(b"digits")
    parameters = {"seed": 1, "routing": {"iterations": 3}, "train": {"save_every": 60}}
    before = inputs_of(parameters, tmp_path)

    def changed(found):
        return {name for name in before if before[name] != found[name]}

    assert changed(inputs_of(parameters | {"train": {}, "perturb_examples": 9}, tmp_path)) == set()
    assert changed(inputs_of(parameters | {"seed": 2}, tmp_path)) == {"parameters"}
    (tmp_path / ARCHIVES["test"][0]).write_bytes(b"others")
    assert changed(inputs_of(parameters, tmp_path)) == set()
    (tmp_path / ARCHIVES["train"][1]).write_bytes(b"others")
    monkeypatch.setattr(resume, "version", lambda name: "0")
    monkeypatch.setattr(resume, "SOURCES", resume.SOURCES[1:])
    assert changed(inputs_of(parameters, tmp_path)) == {"data", "code", "versions"}


class Stopped(Exception):
    pass


def make_capsnet(network=CapsNet):
    sizes = dict(conv_channels=8, kernel_size=5, primary_types=2, decoder_sizes=[16])
    return network(image_size=20, **sizes)


class WithDropout(CapsNet):
    """As in the baseline, torch's own generator is drawn from in every step."""

    def forward(self, images):
        return super().forward(torch.nn.functional.dropout(images))


def compute_losses(prediction, reconstructions, batch):
    parts = prediction.lengths, batch.targets, reconstructions, batch.sources
    return weighted_losses(*parts, classification=margin_loss, reconstruction_weight=0.0005)


def make_trainer(make_model=make_capsnet) -> tuple[Trainer, Digits]:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (40, 16, 16), generator=torch.Generator().manual_seed(0))
    digits = Digits(images.to(torch.uint8), torch.arange(40) % 10)
    model = make_model()
    trainer = Trainer(
        model,
        torch.optim.Adam(model.parameters(), fused=True),
        compose=partial(compose_batch, digits, image_size=TASK["image_size"]),
        compute_losses=compute_losses,
        learning_rate=lambda step: 0.001,
    )
    return trainer, digits


def train(make_model, folder, stop_after=None, inputs=INPUTS, every=0.0):
    """Train as stage `train` does. Return the weights and the log records without times."""
    trainer, digits = make_trainer(make_model)
    saved = SavedState(folder, "run", inputs, every=every)
    saved.load(trainer)
    steps = range(trainer.progress.step, STEPS)

    def after_step(trainer):
        saved.save_if_due(trainer)
        if trainer.progress.step == stop_after:
            raise Stopped

    def examples(seed: int, last: bool):
        return evaluation_batches(digits, seed=seed, num_examples=8, batch_size=5, **TASK)

    for _ in trainer.fit(
        training_draws(digits, steps, seed=1, batch_size=4, num_digits=2, max_shift=2),
        num_steps=STEPS,
        num_intervals=INTERVALS,
        validation_batches=partial(examples, 0),
        train_eval_batches=partial(examples, 1),
        after_step=after_step,
    ):
        pass
    saved.remove()
    records = [row._replace(seconds=0, images_per_second=0) for row in trainer.history]
    return trainer.model.state_dict(), records


@pytest.mark.parametrize("network", [CapsNet, WithDropout])
def test_resuming_after_every_step_gives_the_same_weights_and_records(tmp_path, network):
    make_model = partial(make_capsnet, network)
    wanted, wanted_rows = train(make_model, tmp_path)
    assert not [*tmp_path.iterdir()]
    for stop_after in range(1, STEPS + 1):
        with pytest.raises(Stopped):
            train(make_model, tmp_path, stop_after)
        found, rows = train(make_model, tmp_path)
        assert rows == wanted_rows
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor), f"{name} after step {stop_after}"
        assert not [*tmp_path.iterdir()]  # removed when all is done


def test_a_save_is_due_only_every_so_often(tmp_path):
    with pytest.raises(Stopped):
        train(make_capsnet, tmp_path, 4, every=1000)
    assert not [*tmp_path.iterdir()]


def test_other_inputs_start_anew_and_say_why(tmp_path, capsys):
    with pytest.raises(Stopped):
        train(make_capsnet, tmp_path, 4)
    wanted, _ = train(make_capsnet, tmp_path / "elsewhere")
    found, rows = train(make_capsnet, tmp_path, inputs=INPUTS | {"parameters": "1"})
    assert len(rows) == INTERVALS and torch.equal(
        found["convolution.weight"], wanted["convolution.weight"]
    )
    told = capsys.readouterr().out
    assert "run: starts anew" in told and "(interrupted after step 4)" in told
    assert "other inputs: parameters\n" in told
    assert len([*tmp_path.glob("run-*")]) == 1  # the other's state is still there for it


@pytest.mark.parametrize("damage", ["bit", "half", "empty"])
def test_a_damaged_state_starts_anew(tmp_path, capsys, damage):
    with pytest.raises(Stopped):
        train(make_capsnet, tmp_path, 4)
    [path] = tmp_path.glob("run-*/state.safetensors")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes({"bit": data, "half": data[: len(data) // 2], "empty": b""}[damage])
    train(make_capsnet, tmp_path)
    assert "run: starts anew: " in capsys.readouterr().out


def test_a_state_that_is_not_finite_leaves_the_last_good_one(tmp_path):
    with pytest.raises(Stopped):
        train(make_capsnet, tmp_path, 4)
    [path] = tmp_path.glob("run-*/state.safetensors")
    good = path.read_bytes()
    trainer, _ = make_trainer()
    saved = SavedState(tmp_path, "run", INPUTS, every=0)
    saved.load(trainer)
    trainer.model.convolution.weight.data[0] = float("nan")
    saved.save_if_due(trainer)
    assert path.read_bytes() == good


def test_a_full_disk_is_reported_once_and_training_continues(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    _, rows = train(make_capsnet, tmp_path)
    told = capsys.readouterr().err
    assert len(rows) == INTERVALS
    assert told.count("No space left on device") == 1 and "resumes from an older step" in told


def test_a_state_is_no_network(tmp_path):
    with pytest.raises(Stopped):
        train(make_capsnet, tmp_path, 4)
    [path] = tmp_path.glob("run-*/state.safetensors")
    with pytest.raises(ValueError, match="holds no network"):
        checkpoint.load(path)


def test_a_second_process_for_the_same_output_is_refused(tmp_path):
    with only_one(tmp_path, tmp_path / "net"):
        with only_one(tmp_path, tmp_path / "other"):
            pass
        with (
            pytest.raises(ValueError, match=r"another process is training .*net: wait"),
            only_one(tmp_path, tmp_path / "net"),
        ):
            pass
