"""A user's error is one line and an exit code; a bug keeps its traceback."""

import os
import signal
import sys
import time

import pytest
import torch

from stages.command import run


@pytest.fixture(autouse=True)
def hooks_as_before(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def raising(error):
    def stage():
        raise error

    return stage


def test_a_users_error_is_its_message(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(raising(ValueError("seed: got -1")), "train")
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "train: seed: got -1\n"


def test_a_full_gpu_is_its_message(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(raising(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")), "train")
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "train: CUDA out of memory. Tried 2 GiB\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(KeyError):
        run(raising(KeyError("bug")), "train")


def test_an_interrupted_stage_says_so(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(raising(KeyboardInterrupt()), "train")
    assert stopped.value.code == 130 and "interrupted" in capsys.readouterr().err


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
