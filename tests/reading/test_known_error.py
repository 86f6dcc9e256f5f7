"""A network is known by the error that was recorded for exactly these weights."""

import hashlib

import pytest
import yaml

from capsnet.reading.errors import KnownError, known_error, recorded_error


@pytest.fixture
def model(save, tmp_path):
    return save(tmp_path / "models" / "pairs.safetensors", num_digits=2, validation_error=41.5)


def record(model, md5: str, metrics: str) -> None:
    """What `dvc repro evaluate@pairs` leaves in the folder above the checkpoint's."""
    root = model.parent.parent
    deps = [{"path": "data/digits", "md5": "1"}, {"path": "models/pairs.safetensors", "md5": md5}]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate@pairs": {"deps": deps}}}))
    path = root / "reports" / "runs" / "pairs" / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(metrics)


def test_the_test_error_beside_the_checkpoint_comes_first(model, monkeypatch):
    """Also when the checkpoint is named from its own folder."""
    record(model, hashlib.md5(model.read_bytes()).hexdigest(), '{"pairs": {"error": 23.31}}')
    assert recorded_error(model) == 23.31
    assert known_error(model) == KnownError(23.31, "test")
    monkeypatch.chdir(model.parent)
    assert recorded_error("pairs.safetensors") == 23.31


def test_what_is_recorded_of_other_weights_is_not_believed(model):
    record(model, "of another file", '{"pairs": {"error": 1.0}}')
    assert recorded_error(model) is None
    assert known_error(model) == KnownError(41.5, "validation")


@pytest.mark.parametrize("metrics", ['{"mnist": {"error": 1.0}}', "[1]", "<<<<<<< HEAD"])
def test_what_is_no_record_is_passed_over(model, metrics):
    record(model, hashlib.md5(model.read_bytes()).hexdigest(), metrics)
    assert recorded_error(model) is None


def test_a_network_may_be_unknown(digits):
    assert known_error(digits) is None


def test_only_a_network_that_is_often_wrong_warns():
    assert KnownError(20.0, "test").warning(2) == ""
    assert KnownError(23.31, "test").warning(2) == (
        "this network is wrong on 23 % of its test pairs"
    )
    assert KnownError(50.0, "validation").warning(1).endswith("50 % of its validation digits")
