"""A small untrained network with twenty digits that are bars."""

import pytest
import torch

from capsnet.data.mnist import Digits
from capsnet.learning.evaluation import Evaluator
from capsnet.nn.capsnet import CapsNet


@pytest.fixture(scope="session")
def make_evaluator():
    def make(num_digits: int, *, max_shift: int = 0, image_size: int = 28, **sizes) -> Evaluator:
        torch.manual_seed(0)
        sizes = {"conv_channels": 8, "primary_types": 2, "decoder_sizes": None} | sizes
        model = CapsNet(image_size=image_size, **sizes).eval()
        images = torch.zeros(20, 28, 28, dtype=torch.uint8)
        images[:, 6:22, 6:10] = images[::2, 6:22, 18:22] = 255
        digits = Digits(images, torch.arange(20) % 10)
        return Evaluator(model, digits, torch.float32, 1, 9, num_digits, image_size, max_shift)

    return make
