"""The networks that a run can name, and where each is: imported only when it is built."""

from importlib import import_module

NETWORKS = {
    "capsnet": "capsnet.nn.capsnet.CapsNet",
    "convnet": "capsnet.nn.convnet.ConvNet",
    "baseline": "capsnet.nn.baseline.BaselineCNN",
}


def network_class(name: str) -> type:
    """The class of a network. Raises KeyError for a name that is not in NETWORKS."""
    module, _, cls = NETWORKS[name].rpartition(".")
    return getattr(import_module(module), cls)
