"""The machine: the precision it multiplies in, its name, its memory."""

import ctypes
import os
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path

import torch

SMALL_NETWORK = 2 * 10**6  # parameters
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Run the matrix arithmetic of the block in `dtype`; float32 changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def choose_device() -> torch.device:
    """A CUDA device where there is one, else the CPU. Only stages and programs call it.

    It is the first device, or in a process that torchrun started the one of its own number; raises
    ValueError if there are fewer.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= count:
        raise ValueError(
            f"LAUNCHER: this machine has {count} GPU(s), none for process {number}: wanted "
            f"--nproc-per-node {count} or fewer"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    # float32 means float32, also in convolutions; half precision is what autocast is for.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # every batch has the same shape: search once
    return device


def allow_tf32(device: torch.device, dtype: torch.dtype) -> None:
    """On CUDA let float32 products use TF32 (10 bits) beside bfloat16 (7 bits), else not."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = dtype == torch.bfloat16


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`precision` float32 or bfloat16 as named; auto: bfloat16 where the hardware multiplies it."""
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    has_bfloat16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def restart_peak(device: torch.device) -> int:
    """Forget the peak so far and give the bytes held now; where no peak is forgotten, the peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # Memory that was freed but kept would be used again without being counted.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return peak(device)


def peak(device: torch.device) -> int:
    """Most bytes held since the restart by the allocator or the process; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # getrusage would count what the parent held, too; some containers do not tell VmHWM
    if kilobytes := _found_in("/proc/self/status", r"VmHWM:\s*(\d+) kB"):
        return 1024 * int(kilobytes)
    with suppress(ImportError):
        import resource  # Unix only

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0


def limit_threads(model: torch.nn.Module) -> None:
    """Use one thread for a network with fewer than `SMALL_NETWORK` parameters outside its decoder:
    two threads wait for each other longer than they compute. OMP_NUM_THREADS, if set, wins.
    """
    sizes = (p.numel() for name, p in model.named_parameters() if not name.startswith("decoder."))
    if sum(sizes) < SMALL_NETWORK and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step instead of giving it back to the system.

    A training step allocates the same large arrays as the one before it. By default each of 32 MiB
    or more is mapped anew, so the system clears all its pages again and again. Elsewhere than with
    glibc nothing happens.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def processor() -> str:
    name = _found_in("/proc/cpuinfo", r"model name\s*: (.+)")
    name = name or platform.processor() or platform.machine()
    has_bfloat16 = choose_dtype("auto", torch.device("cpu")) == torch.bfloat16
    return f"{name} with AVX512-BF16" if has_bfloat16 else name


def _found_in(path: str, pattern: str) -> str:
    """The first group of the pattern in a file; empty if there is no such text or file."""
    with suppress(OSError):
        found = re.search(pattern, Path(path).read_text())
        return found[1] if found else ""
    return ""
