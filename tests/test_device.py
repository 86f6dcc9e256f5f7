"""The machine: no process takes a GPU that is not there, and small networks use one thread."""

import pytest
import torch

from capsnet.learning.device import choose_device, limit_threads
from capsnet.nn.capsnet import CapsNet


def test_more_processes_than_gpus_is_a_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match=r"has 4 .* none for process 4: .* --nproc-per-node 4"):
        choose_device()


def test_a_small_network_uses_one_thread(monkeypatch):
    """The paper's CapsNet is none. A decoder does not count."""
    found = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    with torch.device("meta"):
        limit_threads(CapsNet(image_size=28))
        assert found == []
        small = CapsNet(
            image_size=28, conv_channels=32, primary_types=8, decoder_sizes=(4096, 4096)
        )
    limit_threads(small)
    assert found == [1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    limit_threads(small)
    assert found == [1]
