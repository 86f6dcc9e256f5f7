"""Squash (Sabour, Frosst & Hinton 2017, Eq. 1), its gradient, and another squash."""

import torch
from torch import Tensor


def squash(s: Tensor, dim: int = -1) -> Tensor:
    """Shrink each vector along `dim` to a length below 1 and keep its direction (Eq. 1).

    `s * |s| / (1 + |s|^2)` is Eq. 1 with one norm cancelled. It needs no epsilon: value and
    gradient are zero at zero.
    """
    length = torch.linalg.vector_norm(s, dim=dim, keepdim=True)
    return s * (length / (1 + length**2))  # Eq. 1


def exponential_squash(s: Tensor, dim: int = -1) -> Tensor:
    """The squash of Efficient-CapsNet (Mazzia et al. 2021): lengths are 1 - exp(-|s|)."""
    length = torch.linalg.vector_norm(s, dim=dim, keepdim=True).clamp_min(1e-12)  # 0 / 0
    return s * (-torch.expm1(-length) / length)


def squash_gradient(s: Tensor, grad_capsules: Tensor, dim: int = -1) -> Tensor:
    """dL/ds from dL/dv of v = squash(s), for the backward passes of the kernels."""
    with torch.enable_grad():
        s = s.detach().requires_grad_()
        return torch.autograd.grad(squash(s, dim), s, grad_capsules)[0]
