"""What a run's configuration says, as objects: losses, optimizer, learning rate."""

from collections.abc import Callable
from functools import partial

import torch

from capsnet.config import RunConfig
from capsnet.data.batches import Batch
from capsnet.learning.training import ComputeLosses, exponential, one_cycle
from capsnet.losses import weighted_losses
from capsnet.nn.registry import classification_loss


def losses_of(config: RunConfig) -> ComputeLosses:
    """Of a training step: classification and weighted reconstruction."""
    margins = config.loss.model_dump(exclude={"reconstruction_weight"})
    classification = classification_loss(
        config.network, num_digits=config.task.num_digits, **margins
    )

    def compute(prediction, reconstructions, batch: Batch):
        return weighted_losses(
            prediction.lengths,
            batch.targets,
            reconstructions,
            batch.sources,
            classification=classification,
            reconstruction_weight=config.loss.reconstruction_weight,
        )

    return compute


def adam(model: torch.nn.Module, config: RunConfig) -> torch.optim.Adam:
    """On CUDA its learning rate is a tensor, so that a captured step can be given another one."""
    betas = (config.optimizer.beta1, config.optimizer.beta2)
    device = next(model.parameters()).device
    on_cuda = {"lr": torch.tensor(0.0, device=device), "capturable": True}
    return torch.optim.Adam(
        model.parameters(),
        betas=betas,
        eps=config.optimizer.epsilon,
        fused=True,
        **(on_cuda if device.type == "cuda" else {}),
    )


def schedule(config: RunConfig, num_steps: int) -> Callable[[int], float]:
    """Step, from 0 -> learning rate."""
    rate = config.learning_rate.model_dump()
    if rate.pop("schedule") == "one_cycle":
        return partial(one_cycle, num_steps=num_steps, **rate)
    return partial(exponential, **rate)
