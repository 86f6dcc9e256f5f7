"""Routing by agreement (Sabour, Frosst & Hinton 2017, section 2): functions, no weights.

Legend of the suffixes: b image, i lower capsule, j upper capsule, p lower pose, d upper pose.

`route_reference` is Procedure 1 in a few plain lines: the truth. `route` is the same function of
the same arguments, with the same gradients, but on a CPU and on an NVIDIA GPU it never stores the
votes: the logits of pass k are votes . (v_1 + ... + v_{k-1}), so a pass needs only that running
sum, the query, and the votes are computed anew in each pass, used while they are in the cache or in
registers, and forgotten. `trace` is for those who want to see it all.

Beyond the paper: `bias_jd` (the authors' code), `leaky` (the authors' code: a vote may go to no
capsule at all) and `gradient="last"` (many reimplementations: the couplings count as constants in
the backward pass).
"""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from capsnet.nn.squash import squash

__all__ = ["Trace", "route", "route_reference", "squash", "trace"]
GRADIENTS = ("all", "last")
IMPLEMENTATIONS = ("auto", "reference")


def route_reference(
    lower_bip: Tensor,
    weight_ijpd: Tensor,
    *,
    num_iterations: int,
    bias_jd: Tensor | None = None,
    leaky: bool = False,
    gradient: str = "all",
) -> Tensor:
    """Route lower capsules [b, i, p] to upper capsules [b, j, d]: Procedure 1, written for the eye.

    `weight_ijpd` holds one matrix per pair of capsules. r iterations are r passes with r - 1 logit
    updates. `leaky` adds one more logit per lower capsule, always zero, whose share goes nowhere.
    Raises ValueError for sizes that do not fit, no iterations, or an unknown `gradient`.
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
    """Route lower capsules [b, i, p] to upper ones [b, j, d] without storing the votes.

    Same arguments, value, gradients and errors as `route_reference`. Half precision is summed in
    float32; the result has the dtype of `lower_bip`. The faster way has no second derivatives; with
    `implementation` "reference" it is not used. Raises ValueError also if its kernel does not
    start, here or in the backward pass.
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
        fastest = _fastest(lower.device.type, num_upper)  # the one place that chooses it
    if fastest:
        capsules_bjd = fastest.apply(lower, weight, bias, num_iterations, leaky, gradient)
    else:
        with _without_autocast(lower.device.type):  # it would sum in half precision
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
    """What happened in each of r iterations; the votes are the same in all of them."""

    votes: Tensor  # [b, i, j, d]
    logits: Tensor  # [r, b, i, j], before the softmax of each iteration
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
    """Route as `route_reference` does and show logits, couplings and capsules of every iteration.

    Half precision is summed in float32, as in `route`, whose result differs by rounding alone. The
    votes are stored, so give it few images at a time (36x36: 2 MB of votes each). Same errors as
    `route`; no gradients.
    """
    _check(lower_bip, weight_ijpd, num_iterations, bias_jd, "all")
    with _without_autocast(lower_bip.device.type):
        dtype = torch.promote_types(weight_ijpd.dtype, torch.float32)  # as `route` sums
        lower, weight = lower_bip.to(dtype), weight_ijpd.to(dtype)
        votes_bijd = torch.einsum("bip,ijpd->bijd", lower, weight)  # Eq. 2
        logits_bij = votes_bijd.new_zeros(votes_bijd.shape[:3])
        logits, couplings, capsules = [], [], []
        for _ in range(num_iterations):
            coupling_bij = _coupling(logits_bij, leaky)
            s_bjd = torch.einsum("bij,bijd->bjd", coupling_bij, votes_bijd)  # Eq. 2
            if bias_jd is not None:
                s_bjd = s_bjd + bias_jd
            capsules_bjd = squash(s_bjd)  # Eq. 1
            logits.append(logits_bij)
            couplings.append(coupling_bij)
            capsules.append(capsules_bjd.to(lower_bip.dtype))
            agreement_bij = torch.einsum("bijd,bjd->bij", votes_bijd, capsules_bjd)
            logits_bij = logits_bij + agreement_bij
    return Trace(votes_bijd, *(torch.stack(each) for each in (logits, couplings, capsules)))


def _fastest(device: str, num_upper: int) -> type[torch.autograd.Function] | None:
    """What routes without votes on such a device; None: only the reference does."""
    if device == "cpu":
        from capsnet.nn.kernels.routing_cpu import (
            RouteOnCPU,  # only those who route on a CPU load numba
        )

        return RouteOnCPU
    # torch brings Triton along, but not on every system; its code grows with the upper capsules,
    # and for 47 of them the compiler took minutes.
    if device == "cuda" and num_upper <= 32 and find_spec("triton"):
        from capsnet.nn.kernels.routing_triton import RouteInTriton

        return RouteInTriton
    return None


def _without_autocast(device: str) -> AbstractContextManager:
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()  # as on the meta device


def _check(lower_bip, weight_ijpd, num_iterations, bias_jd, gradient) -> None:
    if lower_bip.dim() != 3 or weight_ijpd.dim() != 4:
        raise ValueError(
            f"route takes lower capsules [b, i, p] and weights [i, j, p, d], "
            f"got {tuple(lower_bip.shape)} and {tuple(weight_ijpd.shape)}"
        )
    num_lower, num_upper, lower_dim, upper_dim = weight_ijpd.shape
    if lower_bip.shape[1:] != (num_lower, lower_dim):
        raise ValueError(
            f"lower capsules {tuple(lower_bip.shape)} do not fit weights "
            f"{tuple(weight_ijpd.shape)}: wanted [b, {num_lower}, {lower_dim}]"
        )
    if bias_jd is not None and bias_jd.shape != (num_upper, upper_dim):
        raise ValueError(
            f"bias has shape {tuple(bias_jd.shape)}, wanted [{num_upper}, {upper_dim}]"
        )
    if num_iterations < 1:
        raise ValueError(f"routing takes at least 1 iteration, got {num_iterations}")
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}, wanted one of {', '.join(GRADIENTS)}")


def _coupling(logits: Tensor, leaky: bool) -> Tensor:
    """Softmax over the upper capsules, the last dimension of `logits`."""
    if leaky:  # one more place to go, with logit zero: the couplings sum to less than 1
        logits = torch.nn.functional.pad(logits, (1, 0))
        return logits.softmax(dim=-1)[..., 1:]
    return logits.softmax(dim=-1)  # Eq. 3: over upper capsules j
