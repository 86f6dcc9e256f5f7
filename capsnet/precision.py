"""In which floating-point format convolutions and decoder are multiplied.

Routing always adds up in float32.
"""

import torch


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Run the matrix arithmetic of the block in `dtype`; float32 changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`precision` float32 or bfloat16 as named; auto: bfloat16 where the hardware multiplies it."""
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    has_bfloat16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32
