"""A picture of a digit, and tiny untrained networks in files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from capsnet import checkpoint
from capsnet.nn.capsnet import CapsNet

TINY = {"conv_channels": 4, "primary_types": 2, "class_dim": 4, "decoder_sizes": (8,)}


def write(path: Path, *, num_digits: int = 1, validation_error=None, **sizes) -> Path:
    """Save an untrained network."""
    torch.manual_seed(0)
    arguments = {"image_size": 28, **TINY, **sizes}
    known = {"num_digits": num_digits, "validation_error": validation_error}
    checkpoint.save(CapsNet(**arguments), path, network="capsnet", arguments=arguments, **known)
    return path


@pytest.fixture
def save() -> Callable[..., Path]:
    return write


@pytest.fixture
def digits(tmp_path) -> Path:
    """A network for one digit."""
    return write(tmp_path / "mnist.safetensors")


@pytest.fixture
def pairs(tmp_path) -> Path:
    """A network for two digits with a known high error."""
    known = {"num_digits": 2, "validation_error": 96.4}
    return write(tmp_path / "multimnist.safetensors", image_size=40, **known)


@pytest.fixture
def picture(tmp_path) -> Path:
    """A seven, dark on light."""
    image = Image.new("L", (120, 120), 255)
    ImageDraw.Draw(image).line([(30, 25), (85, 25), (50, 100)], fill=0, width=12, joint="curve")
    image.save(tmp_path / "seven.png")
    return tmp_path / "seven.png"
