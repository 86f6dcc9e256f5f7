"""What all stages share: arguments, one-line errors for the user, an orderly end by a signal."""

import argparse
import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from capsnet import program_parser
from capsnet.config import RunConfig, load, resolve
from capsnet.paths import STUDY_PARAMS, RunPaths, run_paths

TIME_TO_LEAVE = 6  # seconds; a busy machine takes some more to handle the signal


def run_parser(module: str, doc: str, *, out: bool = False) -> argparse.ArgumentParser:
    """The parser of a stage of one run, which may write to another folder `out`."""
    parser = program_parser(module, doc, "mnist")
    parser.add_argument("run", help="key of `runs` in params.yaml")
    parser.add_argument("--study", action="store_true", help="a run of study/params.yaml")
    if out:
        words = "folder of tables and figures (default: the run's own)"
        parser.add_argument("--out", type=Path, help=words)
    return parser


def configuration(arguments: argparse.Namespace) -> tuple[RunConfig, RunPaths]:
    """The configuration of the run and its paths. Raises ValueError for an invalid one."""
    override = STUDY_PARAMS if arguments.study else None
    config = resolve(load(override=override, run=arguments.run), arguments.run)
    return config, run_paths(arguments.run, config.budget, study=arguments.study)


def run(stage: Callable[[], None], name: str) -> None:
    """Run a stage. ValueError, OSError and a full GPU memory are errors that the user can mend:
    their message is printed without a traceback, with exit code 1. SIGTERM (DVC, cluster
    schedulers, torchrun) and SIGINT leave through the context managers, with 143 and 130.
    """

    def send_again(dropped) -> None:
        """Exceptions in `__del__` are swallowed; send the signal again."""
        sent = {SystemExit: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(dropped.exc_type)
        if sent is None:
            sys.__unraisablehook__(dropped)
        else:
            threading.Timer(0.01, os.kill, (os.getpid(), sent)).start()

    signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # of a shell's `&` or nohup
        signal.signal(signal.SIGINT, leave)
    sys.unraisablehook = send_again
    try:
        require_root(Path.cwd())
        stage()
    except users_errors() as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"{name}: {line}", file=sys.stderr)
        if isinstance(error, ConnectionError):  # freeing its process group can wait for ever:
            end(1)  # it joins a thread that needs the GIL
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)


def leave(number: int, frame: FrameType | None) -> None:
    """End the stage by an exception, and after `TIME_TO_LEAVE` whatever it waits for.

    An exception in an import would leave its lock locked: there the process ends at once. No result
    is written by an import, and the next start closes the MLflow run.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(128 + number)
        frame = frame.f_back
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(TIME_TO_LEAVE)  # the system ends the process, no thread or lock is in the way
    atexit.register(end, 128 + number)
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def end(code: int) -> None:
    """End without Python's finalization, which may wait for a thread that it has stopped itself."""
    sys.stdout.flush()
    os._exit(code)


def require_root(folder: Path) -> None:
    """Raises ValueError in a sub-folder of the repository, of which study/ has a params.yaml."""
    root = Path(__file__).resolve().parents[1]
    if root in folder.parents:
        raise ValueError(f"go to the repository root: cd {os.path.relpath(root, folder)}")


def users_errors() -> tuple[type[Exception], ...]:
    """Not every stage loads torch."""
    torch = sys.modules.get("torch")
    return (ValueError, OSError, torch.OutOfMemoryError) if torch else (ValueError, OSError)
