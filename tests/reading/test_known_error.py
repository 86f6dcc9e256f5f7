"""A network is known by the error that was recorded for exactly these weights."""

import hashlib

import pytest
import yaml

from capsnet.reading.errors import KnownError, known_error


@pytest.mark.parametrize(
    ("metrics", "same_weights", "expected"),
    [
        ('{"quick": {"pairs": {"error": 23.31}}}', True, KnownError(23.31, "test")),
        ('{"quick": {"pairs": {"error": 23.31}}}', False, KnownError(41.5, "validation")),
        ('{"quick": {"mnist": {"error": 23.31}}}', True, KnownError(41.5, "validation")),
        ("<<<<<<< HEAD", True, KnownError(41.5, "validation")),
    ],
)
def test_the_test_error_counts_if_it_is_of_these_weights(
    save, tmp_path, monkeypatch, metrics, same_weights, expected
):
    """dvc.lock says of which weights; without a valid record the checkpoint's own error counts."""
    model = save(tmp_path / "models" / "pairs.safetensors", num_digits=2, validation_error=41.5)
    md5 = hashlib.md5(model.read_bytes()).hexdigest() if same_weights else "other"
    stage = {"deps": [{"path": "models/pairs.safetensors", "md5": md5}]}
    stage["outs"] = [{"path": "errors.csv"}, {"path": "reports/metrics.json"}]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate@pairs": stage}}))
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "metrics.json").write_text(metrics)
    assert known_error(model) == expected
    monkeypatch.chdir(model.parent)
    assert known_error("pairs.safetensors") == expected


def test_only_a_network_that_is_often_wrong_warns(digits):
    assert known_error(digits) is None  # unknown
    assert KnownError(20.0, "test").warning(2) == ""
    assert "wrong on 23 % of its test pairs" in KnownError(23.31, "test").warning(2)
