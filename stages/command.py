"""What every stage does alike: arguments, a user's error is one line, a terminated stage ends in
order.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

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
    parser.add_argument("--override", type=Path, help=OVERRIDE)
    return parser
