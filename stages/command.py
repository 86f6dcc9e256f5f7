"""What every stage does alike: arguments, a user's error is one line, a terminated stage ends in
order, also if it is several processes.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

OVERRIDE = "file whose sections replace those of params.yaml, as study/params.yaml"


def run(stage: Callable[[], None], name: str) -> None:
    """Run a stage; ValueError, OSError and a GPU that is full are the user's to mend: the message,
    exit code 1, no traceback.
    """

    def end(*_) -> None:
        """DVC and cluster schedulers end a stage with SIGTERM, torchrun all processes when one is
        lost: leave through the context managers.
        """
        sys.exit(143)

    def send_again(dropped) -> None:
        """Python drops what is raised in a finaliser, and with it a signal that came just then."""
        sent = {SystemExit: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(dropped.exc_type)
        if sent is None:
            sys.__unraisablehook__(dropped)
        else:
            threading.Timer(0.01, os.kill, (os.getpid(), sent)).start()

    signal.signal(signal.SIGTERM, end)
    sys.unraisablehook = send_again
    try:
        stage()
    except users_errors() as error:
        if not told_by_parent(error):
            for line in str(error).splitlines() or [type(error).__name__]:
                print(f"{name}: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        if not of_several():
            print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)


def of_several() -> bool:
    """Whether this is a process that torchrun started."""
    return bool(os.environ.get("TORCHELASTIC_ERROR_FILE"))


def told_by_parent(error: Exception) -> bool:
    """Leave the error where torchrun takes it from, if there is one to take it."""
    if not of_several():
        return False
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which comes when another one fails, too
    try:
        get_error_handler().record_exception(error)
    except OSError:  # the disk is full, perhaps
        return False
    return True


def users_errors() -> tuple[type[Exception], ...]:
    """Not every stage loads torch."""
    torch = sys.modules.get("torch")
    return (ValueError, OSError, torch.OutOfMemoryError) if torch else (ValueError, OSError)


def parser_of_a_run(description: str) -> argparse.ArgumentParser:
    """For a stage of one run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", help="key of `runs` in params.yaml")
    parser.add_argument("--digits", type=Path, required=True, help="folder of the four archives")
    parser.add_argument("--override", type=Path, help=OVERRIDE)
    return parser


def done_by(launcher: str, module: str) -> bool:
    """Run this stage in the processes that `launcher` starts, a torchrun, and wait for them; False
    for `python` and in one of them: run it here.

    Raises ValueError if torchrun cannot start them, and if one is lost or fails: with its message.
    """
    if launcher == "python" or "WORLD_SIZE" in os.environ:
        return False
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import run as run_processes

    logging.disable()  # torchrun would tell of each process; from here on this one only waits
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until torchrun has its own handler
    arguments = torchrun_arguments(launcher, module)
    try:
        run_processes(arguments)
    except ChildFailedError as error:
        raise ValueError(first_cause(error.failures)) from None
    except SignalException as signalled:
        if signalled.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        sys.exit(128 + signalled.sigval)
    except (Exception, SystemExit) as error:  # of torchrun itself: a port that is taken
        raise refused(launcher, f"{type(error).__name__}: {error}") from None
    return True


def torchrun_arguments(launcher: str, module: str) -> argparse.Namespace:
    """Raises ValueError if torchrun does not know them."""
    from torch.distributed.run import parse_args

    words = StringIO()
    try:
        with redirect_stderr(words):
            return parse_args([*launcher.split()[1:], "-m", module, *sys.argv[1:]])
    except SystemExit:
        raise refused(launcher, words.getvalue().partition("error: ")[2]) from None


def refused(launcher: str, why: str) -> ValueError:
    why = why.strip().partition("\n")[0]
    return ValueError(f"params.yaml: launcher: got {launcher!r}: torchrun: {why}")


def first_cause(failures: Mapping[int, Any]) -> str:
    """What torchrun's first failure said; those who only lost another process are asked last."""

    def order(rank: int) -> tuple[bool, int]:
        lost = "another process was lost" in str(failures[rank].message)  # as capsnet.ranks says
        return lost, failures[rank].timestamp

    rank = min(failures, key=order)
    failure = failures[rank]
    if isinstance(failure.message, dict):
        return failure.message["message"].partition(": ")[2]
    if failure.exitcode < 0:
        return f"process {rank} was lost ({failure.signal_name()}): start again to go on"
    return f"process {rank} ended with exit code {failure.exitcode}"
