"""The machine's memory: what is freed stays at hand."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, torch
from capsnet.hardware import keep_freed_memory
keep_freed_memory()
for step in range(11):
    torch.empty(64 * 2**20, dtype=torch.uint8).fill_(step)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep it")
def test_a_large_array_is_not_mapped_anew_each_time():
    """64 MiB are 16,384 pages of 4 KiB. Without `keep_freed_memory` each of ten later uses touches
    all of them; with it a few may, where something small has taken a piece of the first place.
    """
    finished = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    first, *_, last = map(int, finished.stdout.split())
    assert last - first < 5 * 16_384, finished
