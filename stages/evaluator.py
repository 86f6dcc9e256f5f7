"""The network of one run with the test digits, as `evaluate` and `perturb` show them to it."""

from pathlib import Path

import torch

from capsnet.config import RunConfig
from capsnet.learning.device import keep_freed_memory
from capsnet.learning.evaluation import Subject, load_subject
from capsnet.nn.layers import route_with


def subject_of(config: RunConfig, model: Path, digits: Path, device: torch.device) -> Subject:
    """The checkpoint `model` and the test split of the folder `digits`, on the device."""
    keep_freed_memory()
    subject = load_subject(
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
    route_with(subject.model, config.routing.implementation)
    return subject
