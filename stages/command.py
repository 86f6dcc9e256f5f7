"""What every stage does alike: arguments, a user's error is one line, a terminated stage ends in
order.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

ALSO = "file whose sections stand for those of params.yaml, as the study's"


def run(stage: Callable[[], None], name: str) -> None:
    """Run a stage; ValueError and OSError are the user's to mend: their message, exit code 1, no
    traceback.
    """
    # DVC and cluster schedulers end a stage with SIGTERM: leave through the context managers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
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
