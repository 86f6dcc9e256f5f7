"""The record of a training: which code, software and machine it ran on, and when."""

import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import torch

from capsnet.device import processor

ROOT = Path(__file__).resolve().parents[1]


def record(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Taken when a training starts: the commit may move on while it runs."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "precision": str(dtype).removeprefix("torch."),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def commit() -> str:
    """Of the code that runs, "+ changes" if it is not as committed; "unknown" without git."""
    with suppress(Exception):
        changed = git("status", "--porcelain", "--", "capsnet", "stages")
        return git("rev-parse", "--short", "HEAD") + (" + changes" if changed else "")
    return "unknown"


def git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
