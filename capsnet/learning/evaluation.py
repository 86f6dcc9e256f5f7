"""A trained network put to the test: whole batches, no gradients."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from capsnet import checkpoint, metrics
from capsnet.data.batches import Batch, evaluation_batches
from capsnet.data.mnist import Digits, load_digits
from capsnet.learning.device import allow_tf32, autocast, choose_dtype
from capsnet.learning.distributed import SINGLE_PROCESS, Distributed
from capsnet.nn.capsnet import Prediction


@dataclass(frozen=True)
class Predictions:
    """The predictions of a network for every test example, on the CPU."""

    lengths: Tensor  # float [n, j]
    labels: Tensor  # int64 [n, k]
    reconstruction_error: Tensor  # [n, k] sum of squared pixel differences; NaN without a decoder
    overlap: Tensor  # [n], zero for one digit
    capsules: Tensor | None = None  # [m, j, d] of the first m examples, empty where there are none

    @cached_property
    def predicted(self) -> Tensor:
        return metrics.predict(self.lengths, self.labels.shape[1])

    @cached_property
    def correct(self) -> Tensor:
        return metrics.exact_match(self.lengths, self.labels)


class Evaluator(NamedTuple):
    """A network under test, and all that decides which examples it is shown."""

    model: nn.Module
    digits: Digits
    dtype: torch.dtype  # bfloat16 means autocast
    seed: int
    batch_size: int
    num_digits: int  # in an image
    image_size: int  # pixels
    max_shift: int  # of each digit, pixels

    def batches(self, num_examples: int) -> Iterator[Batch]:
        """The first examples of the test, the same each time."""
        protocol = dict(zip(self._fields[3:], self[3:], strict=True))  # from `seed` on
        return evaluation_batches(self.digits, num_examples=num_examples, **protocol)

    def regenerate(self, numbers: Collection[int]) -> dict[int, Batch]:
        """The test examples with these indices, each as a batch of one."""
        wanted, chosen, start = set(numbers), {}, 0
        for batch in self.batches(max(numbers, default=-1) + 1):
            for number in wanted & set(range(start, start + len(batch))):
                chosen[number] = Batch(*(field[number - start, None] for field in batch))
            start += len(batch)
        return chosen

    def predict(self, images: Tensor) -> Prediction:
        return predict(self.model, images, self.dtype)

    def evaluate(
        self, num_examples: int, distributed: Distributed = SINGLE_PROCESS, num_kept: int = 0
    ) -> Predictions:
        """Predict every example once and reconstruct its true digits, as in training.

        Each of several processes evaluates some of the batches; all get all predictions. The
        capsules of the first `num_kept` examples stay in them.
        """
        parts, begin = [], 0
        for number, batch in enumerate(self.batches(num_examples)):
            begin += len(batch)
            if number % distributed.size != distributed.rank:
                continue
            prediction = self.predict(batch.images)
            error, capsules = torch.full(batch.labels.shape, float("nan")), torch.empty(0)
            if self.model.decoder is not None:
                difference = decode(self.model, prediction.capsules, batch.labels) - batch.sources
                error = difference.square().sum(dim=tuple(range(2, difference.ndim)))
            pairs = batch.labels.shape[1] > 1
            overlap = metrics.overlap(batch.sources) if pairs else torch.zeros(len(batch))
            if prediction.capsules is not None:
                capsules = prediction.capsules[: max(0, num_kept - begin + len(batch))].float()
            found = (prediction.lengths, batch.labels, error, overlap, capsules)
            parts.append([field.cpu() for field in found])
        fields = zip(*distributed.gather(parts), strict=True)
        return Predictions(*(torch.cat(field) for field in fields))


def load_evaluator(
    model: Path, digits: Path, device: torch.device, *, precision: str, **protocol: int
) -> Evaluator:
    """A checkpoint and the test digits of a folder, on the device, tested by the `protocol`: the
    fields of Evaluator from `seed` on. Raises ValueError for a file that is missing or broken.
    """
    network = checkpoint.load(model).to(device)
    test_digits = load_digits(digits, "test").to(device)
    known = checkpoint.about(checkpoint.describe(model)).classes
    if known != test_digits.classes:
        raise ValueError(
            f"{model} knows the classes {listed(known)}, {digits} has {listed(test_digits.classes)}"
        )
    channels = checkpoint.describe(model)["arguments"].get("num_channels", 1)
    if channels != test_digits.num_channels:
        raise ValueError(
            f"{model} reads {channels} channel(s), {digits} has {test_digits.num_channels}"
        )
    dtype = choose_dtype(precision, device)
    allow_tf32(device, dtype)
    return Evaluator(network, test_digits, dtype, **protocol)


def listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Prediction:
    """Predict one batch of images [b, c, h, w]; `dtype` bfloat16 means autocast."""
    with autocast(images.device, dtype):
        return model(images)


@torch.inference_mode()
def decode(model: nn.Module, capsules: Tensor, labels: Tensor) -> Tensor:
    """Reconstructions [b, k, (c,) h, w] from the capsules of the classes `labels` [b, k]."""
    return model.decoder(capsules.float(), labels)
