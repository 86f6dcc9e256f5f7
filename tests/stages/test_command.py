"""A user's error is one line and an exit code; a bug keeps its traceback."""

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stages.command import end, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def hooks_as_before(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    signal.alarm(0)
    atexit.unregister(end)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("seed: got -1"), 1, "train: seed: got -1\n"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "train: CUDA out of memory\n"),
        (KeyboardInterrupt(), 130, "train: interrupted\n"),
    ],
)
def test_a_users_error_is_its_message(capsys, error, code, line):
    def stage():
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(stage, "train")
    assert (stopped.value.code, capsys.readouterr().err) == (code, line)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(KeyError):
        run(lambda: {}["bug"], "train")


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_through_context_managers_also_if_it_comes_in_a_finaliser(number, code):
    left = []

    class Finalised:
        def __del__(self):
            os.kill(os.getpid(), number)

    def stage():
        try:
            Finalised()
            time.sleep(10)
        finally:
            left.append(time.monotonic())

    begun = time.monotonic()
    with pytest.raises(SystemExit) as stopped:
        run(stage, "train")
    assert stopped.value.code == code and left[0] - begun < 5


STAGES = {  # its body, exit code, what it prints
    # An exception in an import would leave its lock locked: the process ends at once.
    "an import": ("  import slow", 143, ""),
    "for ever": ("  try: kill()\n  finally: threading.Event().wait()", -signal.SIGALRM, ""),
    # Stands for a thread that Python stopped with its lock.
    "at the end": ("  atexit.register(threading.Event().wait); print('on'); kill()", 143, "on\n"),
}


@pytest.mark.parametrize(("body", "code", "printed"), STAGES.values(), ids=STAGES)
def test_nothing_waits_after_a_signal(body, code, printed, tmp_path):
    """In a process of its own, which sends itself SIGTERM."""
    start = "import os, signal\nkill = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
    slow = "import time\ntry: kill(); time.sleep(60)\nexcept BaseException: print('raised')\n"
    (tmp_path / "slow.py").write_text(start + slow)
    program = f"{start}import atexit, sys, threading; from stages import command\n"
    program += f"sys.path.append({str(tmp_path)!r}); command.TIME_TO_LEAVE = 1\n"
    program += f"def stage():\n{body}\ncommand.run(stage, 'train')"
    start = [sys.executable, "-c", program]
    done = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, printed, "")
