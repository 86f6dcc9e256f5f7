"""Routing compared with `route_reference`."""

import torch

from capsnet.nn.routing import route_reference

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # relative to the largest magnitude


def assert_near(found, wanted):
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    error = (found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30)
    assert error <= TOLERANCE[wanted.dtype], f"relative error {error:.1e}"


def value_and_gradients(routing, lower, weight, bias, grad, **options):
    inputs = [t.clone().requires_grad_() for t in (lower, weight, bias) if t is not None]
    capsules = routing(*inputs[:2], bias_jd=None if bias is None else inputs[2], **options)
    return capsules.detach(), *torch.autograd.grad(capsules, inputs, grad, allow_unused=True)


def compare(routing, *arguments, **options) -> None:
    """With `route_reference`, in value and gradients."""
    found = value_and_gradients(routing, *arguments, **options)
    wanted = value_and_gradients(route_reference, *arguments, **options)
    for one, other in zip(found, wanted, strict=True):
        assert_near(one, other)
