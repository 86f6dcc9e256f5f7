"""Real processes, really killed; the soak of many kills is `python -m tests.interruption`."""

import signal

import pytest

from tests.interruption import compare, interrupt, make_workspace, start


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interruption")
    make_workspace(folder, steps=60)
    assert start(folder, "multimnist", "alone").wait() == 0
    return folder


def test_a_killed_training_goes_on_and_ends_the_same(workspace):
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    told = interrupt(workspace, "multimnist", 3, 0.3, signals)
    assert len(told) == 4 and "multimnist: goes on after step" in told[-1]
    assert not any("Traceback" in each for each in told)
    compare(workspace)


def test_a_second_process_is_refused_in_one_line(workspace):
    first = start(workspace, "mnist", "twice")
    for line in first.stdout:
        if "squared px" in line:
            break
    second = start(workspace, "mnist", "twice")
    told = second.communicate(timeout=60)[0].strip().splitlines()
    assert second.returncode == 1
    assert len(told) == 1 and "another process is training" in told[0]
    first.kill()
    first.wait()
