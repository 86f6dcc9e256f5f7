"""Routing by agreement (Sabour, Frosst & Hinton 2017, section 2): functions, no weights.

Suffixes: b image, i lower capsule, j upper capsule, p lower pose, d upper pose.

`route_reference` is Procedure 1. `route` has the same value and gradients but does not store the
votes on a CPU or an NVIDIA GPU. The logits of pass k are votes . (v_1 + ... + v_{k-1}), so a pass
needs only this running sum, the query, and recomputes the votes. `trace` returns every iteration.

Not in the paper: `bias_jd` and `leaky` (both of the authors' code) and `gradient="last"` (many
reimplementations: the couplings are constants in the backward pass).
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from capsnet.nn.squash import squash

__all__ = ["Trace", "route", "route_reference", "squash", "trace"]
GRADIENTS = ("all", "last")
IMPLEMENTATIONS = ("auto", "reference")
MOST_IN_TRITON = 32  # upper capsules: the compiler takes minutes for 47


def route_reference(
    lower_bip: Tensor,
    weight_ijpd: Tensor,
    *,
    num_iterations: int,
    bias_jd: Tensor | None = None,
    leaky: bool = False,
    gradient: str = "all",
) -> Tensor:
    """Route lower capsules [b, i, p] to upper capsules [b, j, d] (Procedure 1).

    `weight_ijpd` has one matrix per pair of capsules. r iterations are r passes and r - 1 logit
    updates. `leaky` adds to the softmax a logit of zero whose coupling is dropped. Raises
    ValueError if sizes do not match, for no iterations, or for an unknown `gradient`.
    """
    _check(lower_bip, weight_ijpd, num_iterations, bias_jd, gradient)
    votes_bijd = torch.einsum("bip,ijpd->bijd", lower_bip, weight_ijpd)  # Eq. 2
    fixed_votes_bijd = votes_bijd if gradient == "all" else votes_bijd.detach()
    num_images, num_lower, num_upper, _ = votes_bijd.shape
    # One set of logits per image, never shared by the batch.
    logits_bij = votes_bijd.new_zeros(num_images, num_lower, num_upper)
    for iteration in range(num_iterations):
        final = iteration == num_iterations - 1
        coupling_bij = _coupling(logits_bij, leaky)
        used_votes_bijd = votes_bijd if final else fixed_votes_bijd
        s_bjd = torch.einsum("bij,bijd->bjd", coupling_bij, used_votes_bijd)  # Eq. 2
        if bias_jd is not None:
            s_bjd = s_bjd + (bias_jd if final or gradient == "all" else bias_jd.detach())
        capsules_bjd = squash(s_bjd)  # Eq. 1
        if not final:
            agreement_bij = torch.einsum("bijd,bjd->bij", fixed_votes_bijd, capsules_bjd)
            logits_bij = logits_bij + agreement_bij
    return capsules_bjd


def route(
    lower_bip: Tensor,
    weight_ijpd: Tensor,
    *,
    num_iterations: int,
    bias_jd: Tensor | None = None,
    leaky: bool = False,
    gradient: str = "all",
    implementation: str = "auto",
) -> Tensor:
    """Route lower capsules [b, i, p] to upper capsules [b, j, d] without storing the votes.

    Arguments, value, gradients and errors are those of `route_reference`. Half precision is summed
    in float32; the result has the dtype of `lower_bip`. The kernels have no second derivatives;
    `implementation="reference"` does not use them. Raises ValueError if a kernel does not start,
    also in the backward pass.
    """
    _check(lower_bip, weight_ijpd, num_iterations, bias_jd, gradient)
    if implementation not in IMPLEMENTATIONS:
        wanted = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"implementation is {implementation!r}, wanted one of {wanted}")
    dtype = torch.promote_types(weight_ijpd.dtype, torch.float32)  # sums in float32 or better
    lower, weight = lower_bip.to(dtype), weight_ijpd.to(dtype)
    _, num_upper, _, upper_dim = weight.shape
    bias = weight.new_zeros(num_upper, upper_dim) if bias_jd is None else bias_jd.to(dtype)
    fastest = None
    if implementation == "auto" and lower.numel() > 0:
        fastest = _fastest(lower.device.type, num_upper)
    if fastest:
        capsules_bjd = fastest.apply(lower, weight, bias, num_iterations, leaky, gradient)
    else:
        with without_autocast(lower.device.type):  # sum in float32
            capsules_bjd = route_reference(
                lower,
                weight,
                num_iterations=num_iterations,
                bias_jd=bias,
                leaky=leaky,
                gradient=gradient,
            )
    return capsules_bjd.to(lower_bip.dtype)


class Trace(NamedTuple):
    """Votes and the couplings and capsules of each of r iterations."""

    votes: Tensor  # [b, i, j, d], the same in all iterations
    couplings: Tensor  # [r, b, i, j]
    capsules: Tensor  # [r, b, j, d]


@torch.no_grad()
def trace(
    lower_bip: Tensor,
    weight_ijpd: Tensor,
    *,
    num_iterations: int,
    bias_jd: Tensor | None = None,
    leaky: bool = False,
) -> Trace:
    """Route and return couplings and capsules of every iteration, without gradients.

    Half precision is summed in float32, as in `route`. The votes of an image of 36x36 pixels take
    2 MB. Raises the same errors as `route_reference`.
    """
    _check(lower_bip, weight_ijpd, num_iterations, bias_jd, "all")
    with without_autocast(lower_bip.device.type):
        dtype = torch.promote_types(weight_ijpd.dtype, torch.float32)
        lower, weight = lower_bip.to(dtype), weight_ijpd.to(dtype)
        votes_bijd = torch.einsum("bip,ijpd->bijd", lower, weight)  # Eq. 2
        logits_bij = votes_bijd.new_zeros(votes_bijd.shape[:3])
        couplings, capsules = [], []
        for _ in range(num_iterations):
            coupling_bij = _coupling(logits_bij, leaky)
            s_bjd = torch.einsum("bij,bijd->bjd", coupling_bij, votes_bijd)  # Eq. 2
            if bias_jd is not None:
                s_bjd = s_bjd + bias_jd
            capsules_bjd = squash(s_bjd)  # Eq. 1
            couplings.append(coupling_bij)
            capsules.append(capsules_bjd.to(lower_bip.dtype))
            agreement_bij = torch.einsum("bijd,bjd->bij", votes_bijd, capsules_bjd)
            logits_bij = logits_bij + agreement_bij
    return Trace(votes_bijd, torch.stack(couplings), torch.stack(capsules))


def _fastest(device: str, num_upper: int) -> type[torch.autograd.Function] | None:
    """The kernel for a device, or None. Imported here so that only its users load its compiler."""
    if device == "cpu":
        from capsnet.nn.kernels.routing_cpu import RouteOnCPU

        return RouteOnCPU
    if device == "cuda" and num_upper > MOST_IN_TRITON:
        say_once(f"routing to {num_upper} classes: above {MOST_IN_TRITON} PyTorch, not Triton")
    elif device == "cuda" and find_spec("triton"):  # not every system has Triton
        from capsnet.nn.kernels.routing_triton import RouteInTriton

        return RouteInTriton
    return None


@cache
def say_once(line: str) -> None:
    print(line, file=sys.stderr)


def without_autocast(device: str) -> AbstractContextManager:
    """Multiply and sum in the dtype of the tensors."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()  # the meta device


def _check(lower_bip, weight_ijpd, num_iterations, bias_jd, gradient) -> None:
    lower, weight = tuple(lower_bip.shape), tuple(weight_ijpd.shape)
    if len(lower) != 3 or len(weight) != 4 or lower[1:] != weight[::2]:
        raise ValueError(
            f"lower capsules {lower} do not match weights {weight}: wanted [b, i, p], [i, j, p, d]"
        )
    if bias_jd is not None and bias_jd.shape != weight[1::2]:
        raise ValueError(f"bias has shape {tuple(bias_jd.shape)}, wanted {weight[1::2]}")
    if num_iterations < 1:
        raise ValueError(f"routing takes at least 1 iteration, got {num_iterations}")
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}, wanted one of {', '.join(GRADIENTS)}")


def _coupling(logits: Tensor, leaky: bool) -> Tensor:
    """Softmax over the upper capsules, the last dimension of `logits`."""
    if leaky:  # a further logit of zero: the couplings sum to less than 1
        logits = torch.nn.functional.pad(logits, (1, 0))
        return logits.softmax(dim=-1)[..., 1:]
    return logits.softmax(dim=-1)  # Eq. 3: over upper capsules j
