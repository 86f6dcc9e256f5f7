"""What every stage does alike: arguments, a user's error is one line, a terminated stage ends in
order.
"""

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

ALSO = "file whose sections stand for those of params.yaml, as the study's"


def run(stage: Callable[[], None], name: str) -> None:
    """Run a stage; ValueError and OSError are the user's to mend: their message, exit code 1, no
    traceback.
    """

    def end(*_) -> None:
        """DVC and cluster schedulers end a stage with SIGTERM, torchrun all processes when one is
        lost: leave through the context managers.
        """
        if os.environ.get("RANK") == "0":
            why = "another of its processes was lost, or all were told to end"
            print(f"{name}: ended: {why}; start again to go on", file=sys.stderr)
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
    except (ValueError, OSError) as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"{name}: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)


def parser_of_a_run(description: str) -> argparse.ArgumentParser:
    """For a stage of one run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", help="key of `runs` in params.yaml")
    parser.add_argument("--digits", type=Path, required=True, help="folder of the four archives")
    parser.add_argument("--also", type=Path, help=ALSO)
    return parser


def start_with(launcher: str, module: str) -> None:
    """Become what `launcher` starts, a torchrun that runs this stage in several processes; nothing
    for `python` and in a process that was started so. Raises ValueError for no such program.
    """
    if launcher == "python" or "WORLD_SIZE" in os.environ:
        return
    program, *options = shlex.split(launcher)
    try:
        os.execvp(program, [program, *options, "-m", module, *sys.argv[1:]])
    except OSError as error:
        raise ValueError(
            f"params.yaml: launcher: got {launcher!r}, but {program!r} does not start "
            f"({error.strerror}): wanted python, or torchrun with its options"
        ) from None
