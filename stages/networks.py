"""From params.yaml to what the networks and losses take: the one place to add a network."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from torch import Tensor

from capsnet.losses import margin_loss, sigmoid_loss, softmax_loss
from capsnet.params import Params, Task


def network_arguments(params: Params, network: str, task: Task) -> dict[str, object]:
    """Keyword arguments of the network's class; they go into the checkpoint and rebuild it."""
    if network == "baseline":
        return {
            "image_size": task.image_size,
            "num_digits": task.num_digits,
            "dropout": params.network.dropout,
        }
    sizes, routing = asdict(params.network), asdict(params.routing)
    del sizes["dropout"]
    if params.loss.reconstruction_weight == 0:
        sizes["decoder_sizes"] = None
    routing["num_iterations"] = routing.pop("iterations")
    return {"image_size": task.image_size, **sizes, **routing}


def classification_loss(
    params: Params, network: str, task: Task
) -> Callable[[Tensor, Tensor], Tensor]:
    """Eq. 4 for capsules; the baselines have a cross-entropy each, as published."""
    if network == "baseline":
        return softmax_loss if task.num_digits == 1 else sigmoid_loss
    return partial(
        margin_loss,
        positive_margin=params.loss.positive_margin,
        negative_margin=params.loss.negative_margin,
        down_weight=params.loss.down_weight,
    )
