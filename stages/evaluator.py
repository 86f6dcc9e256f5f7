"""The network of one run with the test digits, as `evaluate` and `perturb` show them to it."""

from pathlib import Path

import torch

from capsnet.device import keep_freed_memory
from capsnet.evaluation import Subject, load_subject
from capsnet.nn.layers import route_with
from capsnet.params import Params
from capsnet.runs import task_of


def subject_of(
    params: Params, run: str, model: Path, digits: Path, device: torch.device
) -> Subject:
    """The checkpoint `model` and the test split of the folder `digits`, on the device."""
    keep_freed_memory()
    task = task_of(params, run)
    subject = load_subject(
        model,
        digits,
        device,
        precision=params.optimizer.precision,
        seed=params.evaluate.seed,
        batch_size=params.evaluate.batch_size,
        num_digits=task.num_digits,
        image_size=task.image_size,
        max_shift=task.test_shift,
    )
    route_with(subject.model, params.routing.implementation)
    return subject
