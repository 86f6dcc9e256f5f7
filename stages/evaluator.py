"""The evaluator of one run, for the stages `evaluate` and `perturb`."""

from pathlib import Path

import torch

from capsnet.config import RunConfig
from capsnet.learning.device import keep_freed_memory
from capsnet.learning.evaluation import Evaluator, load_evaluator
from capsnet.nn.layers import route_with


def make_evaluator(config: RunConfig, model: Path, digits: Path, device: torch.device) -> Evaluator:
    """The checkpoint `model` and the test split of the folder `digits`, on the device."""
    keep_freed_memory()
    evaluator = load_evaluator(
        model,
        digits,
        device,
        precision=config.optimizer.precision,
        seed=config.evaluate.seed,
        batch_size=config.evaluate.batch_size,
        num_digits=config.task.num_digits,
        image_size=config.task.image_size,
        max_shift=config.task.test_shift,
    )
    route_with(evaluator.model, config.routing.implementation)
    return evaluator
