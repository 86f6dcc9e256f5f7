"""What stage `train` does beside the loop; the whole of it runs in test_every_run.py."""

from types import SimpleNamespace

from stages.train import until


def test_a_training_may_stop_at_an_error():
    """Asked for no row beyond the first that reaches it."""
    errors = iter([5.0, float("nan"), 0.8, 0.7, 0.6])
    rows = (SimpleNamespace(validation_error=error) for error in errors)
    assert [row.validation_error for row in until(rows, 0.8)][::2] == [5.0, 0.8]
    assert list(errors) == [0.7, 0.6]
    rows = [SimpleNamespace(validation_error=0.0)] * 3
    assert list(until(rows, None)) == rows
