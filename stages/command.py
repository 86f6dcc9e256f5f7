"""What every stage does alike: a user's error is one line, a terminated stage ends in order."""

import signal
import sys
from collections.abc import Callable


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
