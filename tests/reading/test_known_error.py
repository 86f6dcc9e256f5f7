"""A network is known by the error in its checkpoint."""

from capsnet import checkpoint
from capsnet.reading.errors import KnownError, known_error


def test_a_published_network_has_a_test_error_and_another_its_validation_error(save, tmp_path):
    model = save(tmp_path / "pairs.safetensors", num_digits=2, validation_error=41.5)
    assert known_error(model) == KnownError(41.5, "validation")
    description = checkpoint.describe(model) | {"test_error": 23.31}
    checkpoint.write(model, description, checkpoint.load(model).state_dict())
    assert known_error(model) == KnownError(23.31, "test")


def test_only_a_network_that_is_often_wrong_warns(digits):
    assert known_error(digits) is None  # unknown
    assert KnownError(20.0, "test").warning(2) == ""
    assert "wrong on 23 % of its test pairs" in KnownError(23.31, "test").warning(2)
