"""A trained network reads a picture of handwriting: which digits, how sure, how it would draw them.

The program (`capsnet.predict`) and the service (`capsnet.reading.serving`) answer
alike, both from here.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from capsnet import checkpoint
from capsnet.evaluation import decode, predict
from capsnet.reading.errors import KnownError, known_error
from capsnet.reading.handwriting import fit
from capsnet.studies.calibration import THRESHOLD, probabilities

PAIR_IMAGE_SIZE = 36  # networks for images of this size are trained on two digits, others on one
DIGIT_BOX = 20  # pixels, the longer side of the box around a digit (MNIST)
PAIR_BOXES = (20, 22, 24, 26)  # around two overlapping digits: 9 of 10 of MultiMNIST's are between
PAIR_BOX = 23  # their mean
LEAST_EVIDENCE = 0.3


class Reader(NamedTuple):
    """A network and the pictures that it was trained on: image_size in px, num_digits at most;
    and how often it is wrong, where that is known."""

    model: nn.Module
    image_size: int
    num_digits: int
    error: KnownError | None = None


class Reading(NamedTuple):
    """What a network sees in one picture.

    image float32 [h, w], as the network got it; lengths [10], of a baseline without capsules its
    probabilities; digits, the longest first; reconstructions [k, h, w] of these digits, or None.
    """

    image: np.ndarray
    lengths: np.ndarray
    digits: tuple[int, ...]
    reconstructions: np.ndarray | None

    @property
    def is_sure(self) -> bool:
        """Whether the longest capsule says by its length that its digit is there, and the network
        finds the picture like what it has learned. Without a decoder the length alone decides.
        """
        if self.lengths.max() <= THRESHOLD:
            return False
        return self.reconstructions is None or self.evidence > LEAST_EVIDENCE

    @property
    def evidence(self) -> float:
        """From 0, no digit, to 1: how like the reconstruction is to the image (their correlation),
        times how much of all lengths (squared) belongs to the digits read.

        Noise does not look like its reconstruction, and a letter is a little of several digits.
        """
        image, drawn = self.image - self.image.mean(), self.drawn - self.drawn.mean()
        scale = np.sqrt(np.square(image).sum() * np.square(drawn).sum())
        likeness = (image * drawn).sum() / scale if scale > 0 else 0.0
        squares = np.square(self.lengths)
        return float(likeness * squares[list(self.digits)].sum() / squares.sum())

    @property
    def drawn(self) -> np.ndarray:
        """The reconstructions of all digits read, together: [h, w]."""
        return self.reconstructions.sum(axis=0).clip(max=1)


def load_reader(path: str | Path) -> Reader:
    """Load a checkpoint. Raises ValueError, naming the file, if it is none of ours."""
    model = checkpoint.load(path)
    image_size = checkpoint.describe(path)["arguments"]["image_size"]
    num_digits = 2 if image_size == PAIR_IMAGE_SIZE else 1
    return Reader(model, image_size, num_digits, known_error(path))


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
    prediction = predict(reader.model, torch.from_numpy(image)[None, None], torch.float32)
    lengths = prediction.lengths
    if prediction.capsules is None:
        lengths = probabilities(lengths, reader.num_digits)
    digits = choose_digits(lengths[0], reader.num_digits)
    pictures = None
    if reader.model.decoder is not None:
        pictures = decode(reader.model, prediction.capsules, torch.tensor([digits]))[0].numpy()
    return Reading(image, lengths[0].numpy(), digits, pictures)


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
