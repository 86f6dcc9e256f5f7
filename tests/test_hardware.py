"""The machine's memory: what is freed stays at hand."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, torch
from capsnet.hardware import keep_freed_memory
keep_freed_memory()
for step in range(3):
    torch.empty(64 * 2**20, dtype=torch.uint8).fill_(step)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep it")
def test_the_second_use_of_a_large_array_clears_no_pages():
    """64 MiB are 16,384 pages of 4 KiB: all are touched anew without `keep_freed_memory`."""
    finished = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    first, *_, last = map(int, finished.stdout.split())
    assert last - first < 1000, finished
