"""A small network, digits and trainer for the tests of training."""

from functools import partial

import torch
from torch import nn

from capsnet.data.batches import compose_batch
from capsnet.data.mnist import Digits
from capsnet.learning.training import Trainer
from capsnet.losses import margin_loss, weighted_losses
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.compact import CompactCapsNet

SHIFTED = dict(num_digits=2, max_shift=2)
TASK = SHIFTED | {"image_size": 20}


def make_digits() -> Digits:
    images = torch.randint(0, 256, (40, 16, 16), generator=torch.Generator().manual_seed(0))
    return Digits(images.to(torch.uint8), torch.arange(40) % 10)


def make_model(network: type[nn.Module] = CapsNet) -> nn.Module:
    torch.manual_seed(0)
    sizes = dict(conv_channels=8, kernel_size=5, primary_types=2)
    if network is CompactCapsNet:
        sizes = dict(stem=dict(channels=[4, 8], kernels=[5, 3], strides=[2, 1], primary_kernel=3))
    return network(image_size=20, decoder_sizes=[16], **sizes)


def compute_losses(prediction, reconstructions, batch, classification=margin_loss):
    parts = prediction.lengths, batch.targets, reconstructions, batch.sources
    return weighted_losses(*parts, classification=classification, reconstruction_weight=0.0005)


def make_trainer(model, digits, *, compute_losses=compute_losses, **settings) -> Trainer:
    settings = {"optimizer": torch.optim.Adam(model.parameters(), fused=True)} | settings
    return Trainer(
        model,
        compose=partial(compose_batch, digits, image_size=20),
        compute_losses=compute_losses,
        learning_rate=lambda step: 0.001,
        **settings,
    )
