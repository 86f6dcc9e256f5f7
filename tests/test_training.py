"""The training loop: records, schedules, the decoder's mask, and non-finite losses."""

from contextlib import contextmanager
from functools import partial
from itertools import count
from math import isnan
from types import SimpleNamespace

import pytest
import torch

from capsnet.data.batches import Batch, evaluation_batches, training_batches, training_draws
from capsnet.learning.log import LogRecord, summary
from capsnet.learning.schedules import exponential, one_cycle
from capsnet.learning.step import PredictAndDecode, forward_losses
from capsnet.nn.capsnet import Prediction
from capsnet.nn.compact import CompactCapsNet
from stages.build import until
from tests.training import SHIFTED, TASK, compute_losses, make_digits, make_model, make_trainer


def draw(digits, steps, **task):
    return training_draws(digits, steps, seed=1, batch_size=4, **{**SHIFTED, **task})


def run_fit(model, compute_losses=compute_losses, validate=True):
    """Train 10 steps of 4 images in 3 intervals."""
    digits = make_digits()

    def examples(seed: int, last: bool):
        few = (8 if last else 4) if validate else 0
        return evaluation_batches(digits, seed=seed, num_examples=few, batch_size=5, **TASK)

    trainer = make_trainer(model, digits, compute_losses=compute_losses)
    records = trainer.fit(
        draw(digits, range(10)),
        num_steps=10,
        num_intervals=3,
        validation_batches=partial(examples, 0),
        train_eval_batches=partial(examples, 1),
    )
    found = [*records]
    assert found == trainer.history
    return found


def test_records_come_at_even_intervals_and_end_with_the_last_step():
    """The error of 4 examples is a multiple of 25 %, that of the last 8 one of 12.5 %."""
    records = run_fit(make_model())
    assert [row.step for row in records] == [3, 7, 10]
    assert [row.examples for row in records] == [12, 28, 40]
    last = records[-1]
    assert last.loss == pytest.approx(
        last.classification_loss + 0.0005 * last.reconstruction_loss, rel=1e-5
    )
    assert last.images_per_second > 0
    for row in records:
        for error in (row.validation_error, row.training_error):
            assert 0 <= error <= 100 and error % (12.5 if row is records[-1] else 25) == 0
    assert isnan(run_fit(make_model(), validate=False)[-1].validation_error)


@pytest.mark.parametrize(("found", "expected"), [([1, 3], 0), ([3, 5], 100), ([0, 5], 100)])
def test_a_pair_is_right_only_with_both_digits(found, expected):
    """The first digit, 3, is the longest capsule where it is found."""
    model = make_model()
    lengths = torch.zeros(4, 10)
    lengths[:, found], lengths[:, 3] = 0.8, 0.9 if 3 in found else 0.0
    batch = Batch(torch.zeros(4, 1, 20, 20), None, None, torch.tensor([[3, 1]] * 4))
    model.forward = lambda images: Prediction(lengths, None)
    assert make_trainer(model, make_digits()).error([batch]) == expected


def test_an_error_is_measured_in_evaluation_mode_and_training_goes_on():
    """In training mode batch normalization would take in the validation images."""
    model, digits = make_model(CompactCapsNet).train(), make_digits()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_trainer(model, digits).error(
        evaluation_batches(digits, seed=0, num_examples=8, batch_size=4, **TASK)
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_the_summary_is_that_of_the_last_record_not_of_the_best():
    records = [LogRecord(*[value] * 10) for value in (1.0, 3.0)]
    assert summary(records)["validation_error"] == 3


def test_in_training_the_decoder_sees_the_capsules_of_the_labels():
    """Not those of the predictions."""
    model, seen = make_model(), []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    batch = next(training_batches(make_digits(), [0], seed=1, batch_size=4, **TASK))
    forward_losses(PredictAndDecode(model), batch, compute_losses, torch.float32)
    assert torch.equal(seen[0], batch.labels)


@pytest.mark.parametrize("part", ["classification", "reconstruction"])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(part):
    model = make_model()
    before = [parameter.clone() for parameter in model.parameters()]

    def broken(*inputs):
        return compute_losses(*inputs)._replace(**{part: torch.tensor(float("nan"))})

    with pytest.raises(ValueError, match=f"{part} loss is nan at step 1"):
        run_fit(model, compute_losses=broken)
    assert all(map(torch.equal, before, model.parameters()))


def test_after_a_failed_capture_training_continues_with_one_warning(monkeypatch):
    """As on a GPU, the end of the capture raises a second error."""

    @contextmanager
    def failing(graph):
        try:
            yield
            raise RuntimeError("cannot be captured")
        except RuntimeError:
            raise RuntimeError("capture ended") from None

    monkeypatch.setattr("torch.cuda.CUDAGraph", object)
    monkeypatch.setattr("torch.cuda.graph", failing)
    for name in ("current_stream", "set_stream", "empty_cache"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_: None)
    weights, warnings = [], []
    for captured in (False, True):
        model, digits = make_model(), make_digits()
        step = make_trainer(model, digits).train_step
        if captured:
            step.steps_to_capture, step.warn = 0, warnings.append
            # Unlike on a GPU the failed capture would compute a step.
            monkeypatch.setattr(step, "_run", skip_first(step._run))
        for number, drawn in enumerate(draw(digits, range(4)), 1):
            step(drawn, number)
        weights.append([parameter.detach() for parameter in model.parameters()])
    assert len(warnings) == 1 and "RuntimeError: cannot be captured" in warnings[0]
    assert all(map(torch.equal, *weights))


def skip_first(function):
    calls = count()
    return lambda: function() if next(calls) else None


def test_one_cycle_by_hand():
    """100 steps, warm-up 10: step 0 is 1/11 of the peak, step 10 the peak, step 99 the floor."""
    rate = partial(one_cycle, num_steps=100, peak=0.11, warmup=0.1, floor=0.001)
    assert rate(0) == pytest.approx(0.01)
    assert rate(10) == pytest.approx(0.11)
    assert rate(99) == pytest.approx(0.001)
    assert rate(54) == pytest.approx((0.11 + 0.001) / 2, rel=0.02)
    assert one_cycle(0, num_steps=1, peak=0.1, warmup=0.0, floor=0.0) == pytest.approx(0.1)


def test_exponential_by_hand():
    """0.96 every 2,000 steps, half way it is the square root; never below the floor."""
    rate = partial(exponential, peak=0.001, factor=0.96, every=2000, floor=0.000001)
    assert rate(0) == 0.001
    assert rate(2000) == pytest.approx(0.00096)
    assert rate(1000) == pytest.approx(0.001 * 0.96**0.5)
    assert rate(10**6) == 0.000001


def test_a_training_stops_at_the_first_record_that_reaches_the_error():
    """Of 5, NaN, 0.8, 0.7 and 0.6 % the third reaches 0.8 %; no further record is asked for."""
    errors = iter([5.0, float("nan"), 0.8, 0.7, 0.6])
    records = (SimpleNamespace(validation_error=error) for error in errors)
    assert len(list(until(records, 0.8))) == 3 and list(errors) == [0.7, 0.6]
    assert len(list(until([SimpleNamespace(validation_error=0.0)] * 3, None))) == 3
