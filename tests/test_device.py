"""The machine: what is freed stays at hand, and no process takes a GPU that is not there."""

import platform
import subprocess
import sys

import pytest
import torch

from capsnet.learning.device import choose_device, limit_threads

CODE = """
import resource
from capsnet.learning.device import keep_freed_memory
keep_freed_memory()
counts = [0] * 11
for step in range(11):
    bytearray(64 * 2**20)
    counts[step] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(counts[-1] - counts[0])
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="keep_freed_memory calls mallopt, which only glibc has",
)
def test_a_large_array_is_not_mapped_anew_each_time():
    """64 MiB are 16,384 pages of 4 KiB, and ten later uses touched all of them each time without
    `keep_freed_memory`; a use or two may where something small took a piece of the first place.
    """
    finished = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert int(finished.stdout) < 3 * 16_384, finished


def test_more_processes_than_gpus_is_a_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match=r"has 4 .* none for process 4: .* --nproc-per-node 4"):
        choose_device()


def test_a_small_network_uses_one_thread(monkeypatch):
    found = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    limit_threads(10**10)
    assert found == []
    limit_threads(10**8)
    assert found == [1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    limit_threads(10**8)
    assert found == [1]
