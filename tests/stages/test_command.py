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


def test_a_terminated_stage_leaves_through_its_context_managers():
    left = []

    def stage():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            left.append(True)

    with pytest.raises(SystemExit) as stopped:
        run(stage, "train")
    assert stopped.value.code == 143 and left == [True]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_comes_in_a_finaliser_is_not_lost(number, code):
    class Finalised:
        def __del__(self):
            os.kill(os.getpid(), number)

    def stage():
        Finalised()
        time.sleep(10)

    begun = time.monotonic()
    with pytest.raises(SystemExit) as stopped:
        run(stage, "train")
    assert stopped.value.code == code and time.monotonic() - begun < 5


def end_of(stage: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a stage with this body in a process that sends itself a signal. A file `slow.py` in the
    folder can be imported.
    """
    code = "import os, signal, sys, threading, time; from stages import command\n"
    code += f"sys.path.append({str(folder)!r}); command.TIME_TO_LEAVE = 1\n"
    code += f"def stage():\n{stage}\ncommand.run(stage, 'train')"
    start = [sys.executable, "-c", code]
    return subprocess.run(start, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_an_import_raises_nothing_there(number, tmp_path):
    """An exception would leave the lock of the import locked; the process ends at once."""
    (tmp_path / "slow.py").write_text(
        f"import os, time\ntry:\n    os.kill(os.getpid(), {int(number)})\n    time.sleep(60)\n"
        "except BaseException:\n    print('raised')\n    raise\n"
    )
    done = end_of("  import slow", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


def test_what_waits_for_ever_after_a_signal_is_ended(tmp_path):
    stage = "  try: os.kill(os.getpid(), signal.SIGTERM)\n  finally: threading.Event().wait()"
    assert end_of(stage, tmp_path).returncode == -signal.SIGALRM


def test_after_a_signal_nothing_waits_at_the_end_of_the_process(tmp_path):
    """The handler that waits for ever stands for a thread that Python stopped with its lock."""
    stage = "  import atexit; atexit.register(threading.Event().wait)\n"
    stage += "  print('begun'); os.kill(os.getpid(), signal.SIGTERM)"
    done = end_of(stage, tmp_path)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "begun\n")
