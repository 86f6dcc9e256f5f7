"""A tiny network in a file, a picture of a digit, and a network that has learned digits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from capsnet import checkpoint
from capsnet.data.batches import training_batches
from capsnet.data.mnist import Digits
from capsnet.losses import weighted_losses
from capsnet.nn.capsnet import CapsNet

TINY = {"conv_channels": 4, "primary_types": 2, "digit_dim": 4, "decoder_sizes": (8,)}
SMALL = {"conv_channels": 32, "primary_types": 4, "decoder_sizes": (128, 256)}
