"""The published networks are small and as good as their cards say."""

import os
from pathlib import Path

import pytest
import torch

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES
from capsnet.learning.evaluation import load_evaluator
from capsnet.paths import digits_folder, pretrained

MNIST = Path(os.environ.get("MNIST_MIRROR") or digits_folder())
IMAGES = MNIST / ARCHIVES["test"][0]
has_mnist = pytest.mark.skipif(
    not IMAGES.is_file() or IMAGES.stat().st_size < 10**6,
    reason="no MNIST test digits: set MNIST_MIRROR to a folder with the archives",
)


@has_mnist
@pytest.mark.parametrize(("num_digits", "max_shift"), [(1, 0), (2, 4)])
def test_the_stated_error_is_reached(num_digits, max_shift):
    """On the first 1,000 test examples, within three standard deviations of a share of so many."""
    path = pretrained(num_digits)
    description = checkpoint.describe(path)
    evaluator = load_evaluator(
        path,
        MNIST,
        torch.device("cpu"),
        precision="float32",
        seed=1,
        batch_size=100,
        num_digits=num_digits,
        image_size=description["arguments"]["image_size"],
        max_shift=max_shift,
    )
    stated = description["test_error"] / 100
    assert path.stat().st_size <= 5e6
    wrong = 1 - evaluator.evaluate(1000).correct.float().mean().item()
    assert wrong <= stated + 3 * (stated * (1 - stated) / 1000) ** 0.5
