"""Small networks use one thread."""

import torch

from capsnet.learning.device import limit_threads
from capsnet.nn.capsnet import CapsNet


def test_a_small_network_uses_one_thread(monkeypatch):
    """The paper's CapsNet is none. A decoder does not count."""
    found = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    sizes = {"conv_channels": 32, "primary_types": 8, "decoder_sizes": (4096, 4096)}
    with torch.device("meta"):
        limit_threads(CapsNet(image_size=28))
        assert found == []
        limit_threads(small := CapsNet(image_size=28, **sizes))
    assert found == [1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    limit_threads(small)
    assert found == [1]
