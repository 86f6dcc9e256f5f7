"""The networks that a run can name, and where each is: imported only when it is built."""

from collections.abc import Mapping
from importlib import import_module

NETWORKS = {
    "capsnet": "capsnet.nn.capsnet.CapsNet",
    "convnet": "capsnet.nn.convnet.ConvNet",
    "baseline": "capsnet.nn.baseline.BaselineCNN",
}


def multiply_adds(name: str, arguments: Mapping[str, object]) -> int:
    """Multiply-adds of a prediction for one image, without the decoder; nothing is computed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    size = arguments["image_size"]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network_class(name)(**arguments)(torch.empty(1, 1, size, size))
    return counter.get_total_flops() // 2


def network_class(name: str) -> type:
    """The class of a network. Raises KeyError for a name that is not in NETWORKS."""
    module, _, cls = NETWORKS[name].rpartition(".")
    return getattr(import_module(module), cls)
