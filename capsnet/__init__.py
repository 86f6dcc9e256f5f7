"""Capsule networks with dynamic routing (Sabour, Frosst & Hinton 2017)."""

import argparse
import os
import signal
import sys

# Before torch is imported: OpenMP threads that spin while they wait starve each other on a busy
# machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def program_parser(module: str, doc: str, example: str = "") -> argparse.ArgumentParser:
    """The parser of a program; `example` are the arguments of its example."""
    command = f"python -m {module.removesuffix('.__main__')}"
    return argparse.ArgumentParser(
        prog=command,
        description=doc,
        epilog=f"example: {command} {example}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def check_python(version: tuple = sys.version_info) -> None:
    """Exit with one line if this Python is not one of those in pyproject.toml."""
    if not (3, 11) <= tuple(version[:2]) <= (3, 13):
        found = ".".join(map(str, version[:3]))
        raise SystemExit(f"capsnet needs Python 3.11, 3.12 or 3.13, this is {found}")


def explain_missing_package(kind, error, trace) -> None:
    """Print one line instead of a traceback if a package is not installed."""
    if not issubclass(kind, ModuleNotFoundError):
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"{error}: activate the environment (. .venv/bin/activate) or install the packages "
        "(pip install -r requirements.txt)",
        file=sys.stderr,
    )


if sys.argv[:1] == ["-m"]:  # `python -m` is about to start a program of this package
    check_python()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it imports ends it
    sys.excepthook = explain_missing_package
