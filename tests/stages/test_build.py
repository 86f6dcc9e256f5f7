"""What a training shows: its own digits, shifted, and the validation digits as the test's."""

from pathlib import Path

import pytest
import torch
import yaml

from capsnet import checkpoint
from capsnet.config import load, resolve
from capsnet.data.mnist import Digits, save_digits
from capsnet.learning.distributed import SINGLE_PROCESS
from capsnet.learning.log import LogRecord
from capsnet.learning.training import Trainer
from stages.build import Training, make_evaluator, protocol

PARAMS = Path(__file__).parents[2] / "params.yaml"


def numbers(images: torch.Tensor) -> set[int]:
    """The digits' numbers, which are the values of their pixels."""
    return set((images * 255).round().int().flatten(1).amax(dim=1).tolist())


@pytest.fixture
def training(tmp_path, monkeypatch) -> Training:
    tree = yaml.safe_load(PARAMS.read_text()) | {"budget": "quick"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    config = resolve(load(tmp_path / "params.yaml"), "mnist")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    images = torch.arange(1, 211, dtype=torch.uint8)[:, None, None].expand(-1, 28, 28)
    digits, places = Digits(images, torch.arange(210) % 10), torch.arange(210)
    splits = {"train": digits.pick(places[:200]), "test": digits.pick(places[200:])}
    save_digits(tmp_path, splits)
    return Training(config, tmp_path, torch.device("cpu"), SINGLE_PROCESS)


def test_training_digits_are_shifted_and_validation_digits_are_others_unshifted(
    training, monkeypatch
):
    seen = {}

    def fit(self, draws, **options):
        seen.update(options, draws=next(iter(draws)))
        return iter(())

    monkeypatch.setattr(Trainer, "fit", fit)
    assert list(training.records()) == []
    assert seen["draws"][..., 1:].abs().max() == 2 and protocol(training.config)["max_shift"] == 0
    shown = {}
    for name in ("validation_batches", "train_eval_batches"):
        images = torch.cat([batch.images for batch in seen[name](True)])
        assert (images > 0).all()  # no pixel has left the image
        shown[name] = numbers(images)
    own = numbers(training.digits.images / 255)
    assert shown["validation_batches"] == numbers(training.validation.images / 255)
    assert shown["validation_batches"].isdisjoint(own) and shown["train_eval_batches"] <= own


def test_the_checkpoint_states_the_last_error_and_is_tested_on_test_digits(training, tmp_path):
    """Not the best error, and no digit of the training."""
    training.trainer.history[:] = [LogRecord(*[value] * 10) for value in (1.0, 3.0)]
    path = tmp_path / "model.safetensors"
    training.save(path)
    assert checkpoint.describe(path)["validation_error"] == 3
    evaluator = make_evaluator(training.config, path, tmp_path, torch.device("cpu"))
    assert numbers(evaluator.digits.images / 255) == set(range(201, 211))
