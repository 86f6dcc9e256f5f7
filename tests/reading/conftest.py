"""Made once for all tests: a picture of a digit, and tiny networks in files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from capsnet import checkpoint
from capsnet.nn.capsnet import CapsNet

TINY = {"conv_channels": 4, "primary_types": 2, "class_dim": 4, "decoder_sizes": (8,)}


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """Writes an untrained network to a path: a function of the path and what the network takes."""

    def write(
        path: Path, *, num_digits: int = 1, validation_error: float | None = None, **sizes
    ) -> Path:
        torch.manual_seed(0)
        arguments = {"image_size": 28, **TINY, **sizes}
        known = {
            "arguments": arguments,
            "num_digits": num_digits,
            "validation_error": validation_error,
        }
        checkpoint.save(CapsNet(**arguments), path, network="capsnet", **known)
        return path

    return write


@pytest.fixture(scope="session")
def digits(save, tmp_path_factory) -> Path:
    """An untrained network for one digit."""
    return save(tmp_path_factory.mktemp("models") / "mnist.safetensors")


@pytest.fixture(scope="session")
def pairs(save, tmp_path_factory) -> Path:
    """An untrained network for two digits, which is known to be bad."""
    path = tmp_path_factory.mktemp("models") / "multimnist.safetensors"
    return save(path, image_size=40, num_digits=2, validation_error=96.4)


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    """A seven, dark on light."""
    image = Image.new("L", (120, 120), 255)
    ImageDraw.Draw(image).line([(30, 25), (85, 25), (50, 100)], fill=0, width=12, joint="curve")
    path = tmp_path_factory.mktemp("pictures") / "seven.png"
    image.save(path)
    return path
