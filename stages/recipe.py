"""What params.yaml says, as objects: a network's arguments, its losses, its optimizer, its learning
rate.
"""

from functools import partial

import torch

from capsnet.data.batches import Batch
from capsnet.losses import margin_loss, sigmoid_loss, softmax_loss, weighted_losses
from capsnet.params import Budget, Params
from capsnet.runs import TaskNumbers
from capsnet.training import ComputeLosses, exponential, one_cycle


def network_arguments(params: Params, network: str, task: TaskNumbers) -> dict[str, object]:
    """Keyword arguments of the network's class; they go into the checkpoint and rebuild it."""
    if network == "baseline":
        return {
            "image_size": task.image_size,
            "num_digits": task.num_digits,
            "dropout": params.network.dropout,
        }
    sizes, routing = params.network.model_dump(), params.routing.model_dump()
    del routing["implementation"]
    del sizes["dropout"]
    if network == "convnet":
        del sizes["init"], sizes["weight_std"]
        routing = {}
    else:
        routing["num_iterations"] = routing.pop("iterations")
    if params.loss.reconstruction_weight == 0:
        sizes["decoder_sizes"] = None
    return {"image_size": task.image_size, **sizes, **routing}


def losses_of(params: Params, network: str, task: TaskNumbers) -> ComputeLosses:
    """Eq. 4 for capsules; the baselines have a cross-entropy each, as published."""
    margins = params.loss.model_dump(exclude={"reconstruction_weight"})
    classification = partial(margin_loss, **margins)
    if network == "baseline":
        classification = softmax_loss if task.num_digits == 1 else sigmoid_loss

    def compute(prediction, reconstructions, batch: Batch):
        return weighted_losses(
            prediction.lengths,
            batch.targets,
            reconstructions,
            batch.sources,
            classification=classification,
            reconstruction_weight=params.loss.reconstruction_weight,
        )

    return compute


def adam(model: torch.nn.Module, params: Params) -> torch.optim.Adam:
    """On CUDA its learning rate is a tensor, so that a captured step can be given another one."""
    betas = (params.optimizer.beta1, params.optimizer.beta2)
    device = next(model.parameters()).device
    on_cuda = {"lr": torch.tensor(0.0, device=device), "capturable": True}
    return torch.optim.Adam(
        model.parameters(),
        betas=betas,
        eps=params.optimizer.epsilon,
        fused=True,
        **(on_cuda if device.type == "cuda" else {}),
    )


def schedule(budget: Budget, num_steps: int):
    rate = budget.learning_rate.model_dump()
    if rate.pop("schedule") == "one_cycle":
        return partial(one_cycle, num_steps=num_steps, **rate)
    return partial(exponential, **rate)
