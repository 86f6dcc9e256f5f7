"""Early stopping; test_every_run.py trains with the rest of the module."""

from types import SimpleNamespace

from stages.build import until


def test_a_training_stops_at_the_first_record_that_reaches_the_error():
    """Of 5, NaN, 0.8, 0.7 and 0.6 % the third reaches 0.8 %; no further record is asked for."""
    errors = iter([5.0, float("nan"), 0.8, 0.7, 0.6])
    records = (SimpleNamespace(validation_error=error) for error in errors)
    assert len(list(until(records, 0.8))) == 3
    assert list(errors) == [0.7, 0.6]
    records = [SimpleNamespace(validation_error=0.0)] * 3
    assert list(until(records, None)) == records
