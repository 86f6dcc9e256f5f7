"""What every stage does alike: arguments, a user's error is one line, a terminated stage ends in
order, also if it is several processes.
"""

import argparse
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

ALSO = "file whose sections stand for those of params.yaml, as the study's"


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
        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # one of several, whose parent says it
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
            sys.exit(1)
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"{name}: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)


def users_errors() -> tuple[type[Exception], ...]:
    """Not every stage loads torch."""
    torch = sys.modules.get("torch")
    return (ValueError, OSError, torch.OutOfMemoryError) if torch else (ValueError, OSError)


def parser_of_a_run(description: str) -> argparse.ArgumentParser:
    """For a stage of one run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", help="key of `runs` in params.yaml")
    parser.add_argument("--digits", type=Path, required=True, help="folder of the four archives")
    parser.add_argument("--also", type=Path, help=ALSO)
    return parser


def done_by(launcher: str, module: str) -> bool:
    """Run this stage in the processes that `launcher` starts, a torchrun, and wait for them; False
    for `python` and in one of them: run it here.

    Raises ValueError for another program, and if one process is lost or fails: with its message.
    """
    if launcher == "python" or "WORLD_SIZE" in os.environ:
        return False
    program, *options = shlex.split(launcher)
    if program != "torchrun":
        raise ValueError(
            f"params.yaml: launcher: got {launcher!r}, wanted python, or torchrun with its options"
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args
    from torch.distributed.run import run as run_processes

    logging.disable()  # torchrun would tell of each process; from here on this one only waits
    words = StringIO()
    try:
        with redirect_stderr(words):
            arguments = parse_args([*options, "-m", module, *sys.argv[1:]])
    except SystemExit:
        why = words.getvalue().strip().partition("error: ")[2]
        raise ValueError(f"params.yaml: launcher: got {launcher!r}: torchrun: {why}") from None
    try:
        run_processes(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if isinstance(failure.message, dict):
            raise ValueError(failure.message["message"].partition(": ")[2]) from None
        how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        raise ValueError(f"process {rank} was lost ({how}): start again to go on") from None
    except SignalException as signalled:
        sys.exit(128 + signalled.sigval)
    return True
