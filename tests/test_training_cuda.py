"""The captured step on a GPU; skipped without one."""

from functools import partial
from itertools import count, islice

import pytest
import torch

from capsnet.data.batches import compose_batch, training_draws
from capsnet.data.mnist import Digits
from capsnet.learning.step import TrainingStep, set_learning_rate
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.compact import CompactCapsNet
from tests.training import compute_losses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def train(captured: bool, network: type) -> tuple[torch.Tensor, torch.Tensor, TrainingStep]:
    """Twenty steps with other digits, shifts and rates in each: weights and sums of losses. The
    compact network is shown distorted digits.
    """
    torch.manual_seed(0)
    images = torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8)
    digits = Digits(images, torch.arange(40) % 10).to("cuda")
    augment = network is CompactCapsNet
    sizes = {} if augment else {"conv_channels": 32, "primary_types": 4}
    model = network(image_size=36, **sizes).cuda()
    rate = torch.tensor(0.0, device="cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True, capturable=True)
    step = TrainingStep(
        model,
        optimizer,
        compose=partial(compose_batch, digits, image_size=36),
        compute_losses=compute_losses,
        dtype=torch.bfloat16,
    )
    if captured:
        step.capture_after(3, pytest.fail)
    task = {"batch_size": 16, "num_digits": 2, "max_shift": 4, "augment": augment}
    draws = training_draws(digits, count(), seed=1, **task)
    for number, drawn in enumerate(islice(draws, 20)):
        set_learning_rate(optimizer, 0.001 * number)
        step(drawn, number + 1)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return weights, step.loss_sums, step


@pytest.mark.parametrize("network", [CapsNet, CompactCapsNet])
def test_captured_steps_are_the_eager_ones(network):
    eager, eager_sums, _ = train(False, network)
    captured, captured_sums, step = train(True, network)
    assert step.graph is not None
    torch.testing.assert_close(captured, eager, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(captured_sums, eager_sums, rtol=1e-4, atol=0)
