"""Where a result comes from: the commit, the process, the versions and the hardware."""

import os
import platform
import socket
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path

import torch

from capsnet.learning.device import processor

ROOT = Path(__file__).resolve().parents[1]  # of the running code


def commit(*places: str) -> str:
    """The git commit of the running code, then " + changes" if files of these places (default: all
    but results) differ from it. "unknown" without git.
    """
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    command += places or [".", ":!reports", ":!*dvc.lock"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    oid, *lines = done.stdout.splitlines()  # "# branch.oid 1a2b...", other headers, changed files
    return oid.split()[2] + " + changes" * any(not line.startswith("#") for line in lines)


def execution(stage: str) -> dict[str, str]:
    """Tags of this execution of `stage`, such as `train@mnist`, known before it starts."""
    code, address = commit(), uuid.getnode()
    tags = {
        "dvc.stage": os.environ.get("DVC_STAGE") or stage,
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME"),
        "dvc.exp_baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "process.id": str(os.getpid()),
        "process.host": socket.gethostname(),
        # Distinguishes machines of one name. This bit marks a random number, not an address.
        "process.machine": "unknown" if address >> 40 & 1 else f"{address:012x}",
        "python.version": platform.python_version(),
        "torch.version": str(torch.__version__),
        "hardware.cpu": processor(),
        "hardware.num_threads": str(torch.get_num_threads()),
        "hardware.gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    if code != "unknown":
        tags["mlflow.source.git.commit"] = code.split()[0]
        tags["git.dirty"] = str("+" in code).lower()
    return {name: value for name, value in tags.items() if value}


def record(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Code, software, machine and date of a training. Take it at the start: the commit may move."""
    oid, *changes = commit("capsnet", "stages").split(maxsplit=1)
    return {
        "commit": " ".join([oid[:7], *changes]),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "precision": str(dtype).removeprefix("torch."),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
