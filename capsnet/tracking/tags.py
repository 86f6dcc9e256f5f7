"""What is known about an execution before it starts: tags of the run, and the note on its page."""

import getpass
import os
import platform
import socket
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from capsnet.tracking.values import text

WORKSPACE = Path(__file__).resolve().parents[2]  # the copy whose code runs; DVC_ROOT may be another
PURPOSE = {
    "train": "Trains the network of run `{run}`: live curves, system load, a copy of the weights. "
    "Errors in %, reconstruction loss in squared pixel differences, times in seconds.",
    "evaluate": "Evaluates the trained network of run `{run}` on the test digits. Errors in %.",
    "model": "The network that one execution of stage `train` wrote for run `{run}`; its curves "
    "and errors stand on the source run.",
    "perturb": "Varies each dimension of the digit capsules of run `{run}`, measures the effect.",
}


def tags_of(stage: str, run: str) -> dict[str, str]:
    """What is known about this execution before it starts; unknown facts are left out."""
    name = os.environ.get("DVC_STAGE") or f"{stage}@{run}"
    tags = {
        "mlflow.source.name": f"stages/{stage}.py",
        "mlflow.source.type": "LOCAL",
        "dvc.stage": name,
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME"),
        "dvc.exp_baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "process.id": str(os.getpid()),
        "process.host": socket.gethostname(),
        "process.machine": machine(),
        "python.version": platform.python_version(),
    }
    with suppress(Exception):  # no user name in some containers
        tags["mlflow.user"] = getpass.getuser()
    with suppress(Exception):  # no git, or no commit yet
        tags["mlflow.source.git.commit"] = git("rev-parse", "HEAD")
        # What the stages themselves write does not make the code dirty.
        changed = git("status", "--porcelain", "-uno", "--", ".", ":!reports", ":!dvc.lock")
        tags["git.dirty"] = text(bool(changed))
    with suppress(Exception):
        import torch

        from capsnet.device import processor

        tags["hardware.cpu"] = processor()
        tags["torch.version"] = str(torch.__version__)
        tags["hardware.num_threads"] = str(torch.get_num_threads())
        if torch.cuda.is_available():
            tags["hardware.gpu"] = torch.cuda.get_device_name()
    tags = {name: value for name, value in tags.items() if value}
    return {"mlflow.note.content": note(stage, run, tags)} | tags


def machine() -> str | None:
    """A number of its own for each machine, of which several may have one name; None: unknown."""
    address = uuid.getnode()
    return None if address >> 40 & 1 else f"{address:012x}"  # 1: made up, and anew in each process


def note(stage: str, run: str, tags: Mapping[str, str]) -> str:
    """What a run is, and where DVC and git have it: Markdown for its page."""
    lines = [
        f"- Results of record: `reports/runs/{run}/`, described in `reports/summary.md`.",
        f"- Repeat: `dvc repro {tags['dvc.stage']}`; compare with others: `dvc exp show`.",
    ]
    if "dvc.exp_name" in tags:
        name = tags["dvc.exp_name"]
        lines.append(f"- DVC experiment `{name}`: `dvc exp apply {name}` brings it back.")
    if "mlflow.source.git.commit" in tags:
        dirty = " with uncommitted changes" if tags.get("git.dirty") == "true" else ""
        lines.append(f"- Code: commit `{tags['mlflow.source.git.commit']}`{dirty}.")
    return f"{PURPOSE.get(stage, stage).format(run=run)}\n\n" + "\n".join(lines)


def git(*words: str) -> str:
    """Ask git about the code that runs: in a `--temp` workspace the copy, not the repository."""
    command = ["git", "-C", str(WORKSPACE), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
