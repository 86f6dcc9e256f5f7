"""An interrupted training goes on where it stopped: its state is saved aside every so often.

A state belongs to its inputs: parameters, data, code and versions, all that can change a result. It
lies in `.resume/<run>-<fingerprint of the inputs>/`, outside of what DVC deletes, is replaced as a
whole, and goes when the training is done. Other inputs have another fingerprint, so they can never
pick it up. On a CPU the weights come out the same, bit for bit, as without the interruption.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor, nn
from torch.optim import Adam

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES
from capsnet.learning.distributed import SINGLE_PROCESS, Distributed
from capsnet.learning.training import LogRecord, Progress

ROOT = Path(__file__).resolve().parents[2]  # of the code that runs
SOURCES = (  # what decides the numbers of a training
    *("capsnet/data", "capsnet/nn", "capsnet/losses.py", "capsnet/metrics.py", "capsnet/learning"),
    *("stages/recipe.py", "stages/train.py"),
)
NO_INPUTS = ("train", "perturb", "study_examples", "perturb_examples")  # they change no weight


def inputs_of(parameters: Mapping[str, object], digits: Path) -> dict[str, str]:
    """SHA-256 digests of what decides the weights of a training: its resolved parameters, the
    training archives of the folder `digits`, the sources; and the versions of the libraries.
    """
    used = {name: value for name, value in parameters.items() if name not in NO_INPUTS}
    places = [ROOT / place for place in SOURCES]
    files = [file for place in places for file in (place, *sorted(place.rglob("*.py")))]
    return {
        "parameters": sha256(json.dumps(used, sort_keys=True).encode()),
        "data": sha256(*((digits / name).read_bytes() for name in ARCHIVES["train"])),
        "code": sha256(*(file.read_bytes() for file in files if file.is_file())),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "numba", "numpy")),
    }


def sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


@contextmanager
def only_one(folder: Path, output: Path) -> Iterator[None]:
    """Hold `output` for this process; raises ValueError if another one is about to write it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.md5(str(output.resolve()).encode()).hexdigest()
    try:
        with FileLock(
            folder / f"{name}.lock", timeout=0
        ):  # the system frees it if the process dies
            yield
    except Timeout:
        raise ValueError(
            f"another process is training {output}: wait until it is done, or end it first"
        ) from None


class SavedState:
    """The state of one training. `folder` is shared by all; `inputs` tell one from another."""

    def __init__(self, folder: Path, run: str, inputs: Mapping[str, str], *, every: float) -> None:
        self._run, self._inputs, self._every = run, dict(inputs), every
        text = json.dumps(self._inputs, sort_keys=True)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self._path = folder / f"{run}-{self._fingerprint[:16]}" / "state.safetensors"
        self._due = monotonic() + every
        self._warned = False

    def load(
        self, model: nn.Module, optimizer: Adam, distributed: Distributed = SINGLE_PROCESS
    ) -> tuple[Progress, list[LogRecord]]:
        """Put the saved state into both and give where it stood; without one, the very start. Of
        several processes all get what the first finds, for machines may share no disk.

        Says on stdout what it found: this training's state, or what makes another's unfit.
        """
        found = distributed.from_first(self._read)
        if found is None:
            return Progress(), []
        told, tensors = found
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(tensors[f"model.{name}"])
        for n, parameter in enumerate(model.parameters()):
            moments = {
                name: torch.empty_like(parameter).copy_(tensors[f"adam.{n}.{name}"])
                for name in ("exp_avg", "exp_avg_sq")
            }
            step = tensors[f"adam.{n}.step"].to(parameter.device)
            optimizer.state[parameter] = {"step": step} | moments
        restore_random_state(tensors)
        rows = [LogRecord(*row) for row in told["rows"]]
        progress = Progress(**told["progress"], loss_sums=tensors["loss_sums"])
        print(f"{self._run}: goes on after step {progress.step:,}, saved before it was interrupted")
        return progress, rows

    def save_if_due(
        self,
        model: nn.Module,
        optimizer: Adam,
        progress: Progress,
        rows: list[LogRecord],
        distributed: Distributed = SINGLE_PROCESS,
    ) -> None:
        """Save if `every` seconds have passed since the last time; of several processes the first.

        A state that is not finite is not saved: the last good one stays. Nor does a full disk end
        the training; it is told once.
        """
        if monotonic() < self._due or not distributed.first:
            return
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for n, parameter in enumerate(model.parameters()):
            tensors |= {f"adam.{n}.{k}": value for k, value in optimizer.state[parameter].items()}
        tensors["loss_sums"] = progress.loss_sums
        if all(tensor.isfinite().all() for tensor in tensors.values()):
            counts = {name: value for name, value in vars(progress).items() if name != "loss_sums"}
            told = {"inputs": self._inputs, "progress": counts, "rows": rows}
            try:
                checkpoint.write(self._path, told, tensors | random_state())
            except OSError as error:
                self._warn(f"{error}; if interrupted, the training would go on from an older step")
        self._due = monotonic() + self._every

    def remove(self) -> None:
        """The training is done and its results are written."""
        shutil.rmtree(self._path.parent, ignore_errors=True)

    def _read(self) -> tuple[dict, dict[str, Tensor]] | None:
        if self._path.exists():
            try:
                return checkpoint.read(self._path)
            except ValueError as error:
                print(f"{self._run}: starts anew: {error}")
                return None
        for other in sorted(self._path.parent.parent.glob(f"{self._run}-*/{self._path.name}")):
            try:
                told = checkpoint.describe(other)
                changed = {
                    name
                    for name in told["inputs"].keys() | self._inputs.keys()
                    if told["inputs"].get(name) != self._inputs.get(name)
                }
                step = told["progress"]["step"]
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            some = sorted(changed)[:4] + ["..."] * (len(changed) > 4)
            print(
                f"{self._run}: starts anew: {other.parent} (interrupted after step {step:,}) is "
                f"of other inputs: {', '.join(some)}"
            )
        return None

    def _warn(self, what: str) -> None:
        if not self._warned:
            print(f"{self._run}: {what}", file=sys.stderr)
        self._warned = True


def random_state() -> dict[str, Tensor]:
    """Of torch's generators, which dropout uses."""
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])


def folder_of_states(workspace: Path) -> Path:
    """`.resume` of the repository, also where DVC runs an experiment in a copy that it deletes."""
    return Path(os.environ.get("DVC_ROOT") or workspace) / ".resume"
