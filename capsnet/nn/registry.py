"""Registry of networks. A network is imported when it is built."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import NamedTuple


class Network(NamedTuple):
    path: str  # of the class
    title: str  # in reports
    losses: tuple[str, str]  # functions of capsnet.losses for one and two objects in an image
    arguments: tuple[str, ...]  # keyword arguments of the class set by the configuration
    routes: bool = False
    reconstructs: bool = False
    compact: bool = False  # trained by the budget's section `compact`

    @property
    def gives_lengths(self) -> bool:
        """Whether the scores are lengths of vectors, not unbounded scores."""
        return "margin_loss" in self.losses


MARGIN = ("margin_loss", "margin_loss")
SIZES = ("image_size", "conv_channels", "kernel_size", "strides", "primary_types", "primary_dim",
         "class_dim", "decoder_sizes")  # fmt: skip
ROUTING = ("init", "weight_std", "num_iterations", "leaky", "gradient")
OUTPUTS = ("class_dim", "decoder_sizes")
STEM = ("image_size", "stem", "primary_dim", *OUTPUTS)
COMPACT = {"reconstructs": True, "compact": True}
NETWORKS = {
    "capsnet": Network("capsnet.nn.capsnet.CapsNet", "CapsNet", MARGIN, SIZES + ROUTING,
                       routes=True, reconstructs=True),
    "compact": Network("capsnet.nn.compact.CompactCapsNet", "compact CapsNet", MARGIN,
                       STEM + ROUTING[1:], routes=True, **COMPACT),
    "compact_attention": Network("capsnet.nn.compact.CompactAttention",
                                 "compact CapsNet with self-attention", MARGIN, STEM, **COMPACT),
    "compact_convnet": Network("capsnet.nn.compact.CompactConvNet", "compact ConvNet", MARGIN,
                               STEM, **COMPACT),
    "efficient": Network("capsnet.nn.efficient.EfficientCapsNet", "Efficient-CapsNet", MARGIN,
                         ("image_size", *OUTPUTS), **COMPACT),
    "convnet": Network("capsnet.nn.convnet.ConvNet", "ConvNet", MARGIN, SIZES, reconstructs=True),
    "baseline": Network("capsnet.nn.baseline.BaselineCNN", "baseline CNN",
                        ("softmax_loss", "sigmoid_loss"), ("image_size", "num_digits", "dropout")),
}  # fmt: skip


def network_class(name: str) -> type:
    """The class of a network. Raises KeyError for an unknown name."""
    module, _, cls = NETWORKS[name].path.rpartition(".")
    return getattr(import_module(module), cls)


def network_of(model: object) -> Network:
    """The registry entry of a network. Raises KeyError for an unknown class."""
    path = f"{type(model).__module__}.{type(model).__qualname__}"
    return {network.path: network for network in NETWORKS.values()}[path]


def classification_loss(name: str, *, num_digits: int, **margins: float) -> Callable:
    """(lengths or scores [b, j], multi-hot targets [b, j]) -> scalar. `margins`: those of Eq. 4."""
    network = NETWORKS[name]
    loss = getattr(import_module("capsnet.losses"), network.losses[num_digits - 1])
    return partial(loss, **margins) if network.gives_lengths else loss


def multiply_adds(name: str, arguments: Mapping[str, object]) -> int:
    """Multiply-adds of a prediction for one image, without the decoder, counted on `meta`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    size = arguments["image_size"]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        images = torch.empty(1, arguments.get("num_channels", 1), size, size)
        network_class(name)(**arguments)(images)
    return counter.get_total_flops() // 2
