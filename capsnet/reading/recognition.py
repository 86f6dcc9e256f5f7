"""Recognise the digits in a picture of handwriting, with reconstructions and a rejection option.

`capsnet.predict` and the model server (`capsnet.reading.serving`) both use this module.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from capsnet import checkpoint
from capsnet.learning.evaluation import decode, predict
from capsnet.learning.rejection import DEFAULT_THRESHOLD, rejection_score
from capsnet.losses import THRESHOLD, probabilities
from capsnet.reading.errors import KnownError, known_error
from capsnet.reading.handwriting import fit

DIGIT_BOX = 20  # pixels, the longer side of the box around a digit (MNIST)
PAIR_BOXES = (20, 22, 24, 26)  # around two overlapping digits: 9 of 10 of MultiMNIST's are between
PAIR_BOX = 23  # their mean


class Reader(NamedTuple):
    """A network and its input: image_size in px, at most num_digits digits in an image.

    A picture whose rejection score is below `rejection_threshold` is rejected. `error` is the known
    test or validation error.
    """

    model: nn.Module
    image_size: int
    num_digits: int
    rejection_threshold: float = DEFAULT_THRESHOLD
    error: KnownError | None = None


class Reading(NamedTuple):
    """The prediction for one picture.

    image: float32 [h, w], the input of the network. lengths: [10], or the probabilities of a
    network without capsules. digits: the predicted classes, the longest capsule first. rejected: no
    length exceeds THRESHOLD, or the rejection score is below the threshold. reconstructions:
    [k, h, w] of these digits; None without a decoder, where the lengths alone decide.
    """

    image: np.ndarray
    lengths: np.ndarray
    digits: tuple[int, ...]
    rejected: bool
    reconstructions: np.ndarray | None

    @property
    def drawn(self) -> np.ndarray:
        """The reconstructions of all digits read, together: [h, w]."""
        return self.reconstructions.sum(axis=0).clip(max=1)


def load_reader(path: str | Path) -> Reader:
    """Load a checkpoint. Raises ValueError, naming the file, if it is none of ours."""
    model = checkpoint.load(path)
    description = checkpoint.describe(path)
    image_size, num_digits = description["arguments"]["image_size"], description["num_digits"]
    threshold = description.get("rejection_threshold", DEFAULT_THRESHOLD)
    return Reader(model, image_size, num_digits, threshold, known_error(path))


def read(reader: Reader, ink: np.ndarray) -> Reading:
    """Read ink [h, w] of any size, as `capsnet.reading.handwriting.read_handwriting` gives it.

    How large two overlapping digits should be drawn depends on how far apart they are, which only
    the network can tell: it tries several sizes, and the one that its reconstruction fits best is
    the answer.
    """
    boxes = [DIGIT_BOX]
    if reader.num_digits > 1:
        boxes = [PAIR_BOX] if reader.model.decoder is None else PAIR_BOXES
    images = [fit(ink, image_size=reader.image_size, box_size=box) for box in boxes]
    return min((_read_image(reader, image) for image in images), key=_misfit)


@torch.inference_mode()
def _read_image(reader: Reader, image: np.ndarray) -> Reading:
    images = torch.from_numpy(image)[None, None]
    lengths, capsules = predict(reader.model, images, torch.float32)
    if capsules is None:
        lengths = probabilities(lengths, reader.num_digits)
    digits = choose_digits(lengths[0], reader.num_digits)
    rejected, drawn = not lengths.max() > THRESHOLD, None
    if reader.model.decoder is not None:
        labels = torch.tensor([digits])
        drawn = decode(reader.model, capsules, labels)
        score = rejection_score(images, lengths, labels, drawn).item()
        rejected, drawn = rejected or not score > reader.rejection_threshold, drawn[0].numpy()
    return Reading(image, lengths[0].numpy(), digits, rejected, drawn)


def choose_digits(lengths: Tensor, num_digits: int) -> tuple[int, ...]:
    """The digits of the capsules [j] longer than THRESHOLD, longest first: one to `num_digits`."""
    longest = lengths.topk(num_digits)
    count = max(1, int((longest.values > THRESHOLD).sum()))
    return tuple(longest.indices[:count].tolist())


def _misfit(reading: Reading) -> float:
    """How much of the image its reconstruction misses; 0 without one."""
    if reading.reconstructions is None:
        return 0.0
    return float(np.square(reading.drawn - reading.image).sum() / np.square(reading.image).sum())
