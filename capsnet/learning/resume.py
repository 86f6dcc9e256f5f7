"""Resuming: the state of a training is saved every so often and continued after an interruption.

A state belongs to its inputs: parameters, data, code and versions. It lies in
`.resume/<run>-<fingerprint of the inputs>/`, which DVC does not delete, is replaced as a whole, and
is removed when the training is done. Never resume from another code version or configuration: it
has another fingerprint. On a CPU the weights are bit for bit those of an uninterrupted training.
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

from torch import Tensor

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES
from capsnet.learning.training import LogRecord, Progress, Trainer

ROOT = Path(__file__).resolve().parents[2]  # of the code that runs
SOURCES = (  # what decides the numbers of a training
    *("capsnet/data", "capsnet/nn", "capsnet/losses.py", "capsnet/metrics.py", "capsnet/learning"),
    *("stages/build.py", "stages/train.py"),
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


def states_folder() -> Path:
    """`.resume` of the repository, also where DVC runs an experiment in a copy that it deletes."""
    return Path(os.environ.get("DVC_ROOT") or ROOT) / ".resume"


@contextmanager
def only_one(folder: Path, output: Path) -> Iterator[None]:
    """Lock `output` for this process. Raises ValueError if another process holds the lock."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.md5(str(output.resolve()).encode()).hexdigest()
    try:
        # The system releases the lock of a process that dies.
        with FileLock(folder / f"{name}.lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"another process is training {output}: wait until it is done, or end it first"
        ) from None


class SavedState:
    """The saved state of one training. `folder` is shared by all trainings."""

    def __init__(self, folder: Path, run: str, inputs: Mapping[str, str], *, every: float) -> None:
        self._run, self._inputs, self._every = run, dict(inputs), every
        text = json.dumps(self._inputs, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._path = folder / f"{run}-{fingerprint}" / "state.safetensors"
        self._due = monotonic() + every
        self._warned = False

    def load(self, trainer: Trainer) -> None:
        """Restore the saved state, if there is one. All processes get the state that rank 0 reads,
        since machines may share no disk.

        Prints what it found: this training's state, or the inputs that differ from another's.
        """
        found = trainer.distributed.from_first(self._read)
        if found is None:
            return
        metadata, tensors = found
        history = [LogRecord(*row) for row in metadata["history"]]
        trainer.restore(tensors, Progress(**metadata["progress"]), history)
        step = trainer.progress.step
        print(f"{self._run}: resumes after step {step:,}, saved before it was interrupted")

    def save_if_due(self, trainer: Trainer) -> None:
        """Save on rank 0 if `every` seconds have passed since the last time.

        A state that is not finite is not saved: the last good one stays. A full disk does not end
        the training; it is reported once.
        """
        if monotonic() < self._due or not trainer.distributed.first:
            return
        tensors = trainer.tensors()
        if all(tensor.isfinite().all() for tensor in tensors.values()):
            metadata = {"inputs": self._inputs, "progress": vars(trainer.progress)}
            try:
                checkpoint.write(self._path, metadata | {"history": trainer.history}, tensors)
            except OSError as error:
                if not self._warned:
                    older = "if interrupted, the training resumes from an older step"
                    print(f"{self._run}: {error}; {older}", file=sys.stderr)
                self._warned = True
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
                metadata = checkpoint.describe(other)
                inputs, step = metadata["inputs"], metadata["progress"]["step"]
            except (ValueError, KeyError, TypeError):
                continue
            names = inputs.keys() | self._inputs.keys()
            changed = sorted(name for name in names if inputs.get(name) != self._inputs.get(name))
            print(
                f"{self._run}: starts anew: {other.parent} (interrupted after step {step:,}) has "
                f"other inputs: {', '.join(changed)}"
            )
        return None
