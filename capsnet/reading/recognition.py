"""Recognise handwritten digits in a picture, with reconstructions and a rejection option."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from capsnet import checkpoint
from capsnet.learning.evaluation import decode, predict
from capsnet.learning.rejection import DEFAULT_THRESHOLD, rejection_factors
from capsnet.losses import THRESHOLD, probabilities
from capsnet.reading.errors import KnownError, known_error
from capsnet.reading.handwriting import fit, lies_as_trained
from capsnet.reading.page import choose_marks

DIGIT_BOX = 20  # pixels, the longer side of the box around a digit (MNIST)
PAIR_BOXES = (20, 22, 24, 26)  # around two overlapping digits, 90 % of MultiMNIST
PAIR_SHIFT = 5  # pixels between the centre of mass of two digits and the middle, at most
PAIR_BOX = 23  # their mean
NO_CAPSULE = f"no capsule is longer than {THRESHOLD}"
NO_PROBABILITY = f"no digit has a probability above {THRESHOLD}"
UNLIKE = "the reconstruction does not resemble the picture"


class Reader(NamedTuple):
    """A network for images of `image_size` px with up to `num_digits` digits. Scores below
    `rejection_threshold` are rejected. `error` is the known test or validation error.
    """

    model: nn.Module
    image_size: int
    num_digits: int
    rejection_threshold: float = DEFAULT_THRESHOLD
    error: KnownError | None = None

    @property
    def warning(self) -> str:
        return self.error.warning(self.num_digits) if self.error else ""


class Reading(NamedTuple):
    """The prediction for one picture: the network's input [h, w], lengths [10] (probabilities of a
    network without capsules), the predicted digits by falling length, the reason for a rejection,
    the reconstructions of the digits [k, h, w], None without a decoder, and the ink of the picture
    that was taken for the digits, in the picture's own pixels.
    """

    image: np.ndarray
    lengths: np.ndarray
    digits: tuple[int, ...]
    reason: str | None
    reconstructions: np.ndarray | None
    taken: np.ndarray | None = None

    @property
    def rejected(self) -> bool:
        return self.reason is not None

    def lines(self) -> list[str]:
        return [f"{digit} ({self.lengths[digit]:.2f})" for digit in self.digits]

    def misfit(self) -> float:
        """Squared error of the reconstruction relative to the image; 0 without a decoder."""
        if self.reconstructions is None:
            return 0.0
        drawn = self.reconstructions.sum(axis=0).clip(max=1)
        return float(np.square(drawn - self.image).sum() / np.square(self.image).sum())


def load_reader(path: str | Path) -> Reader:
    """Load a checkpoint. Raises ValueError for another file."""
    model = checkpoint.load(path)
    description = checkpoint.describe(path)
    image_size, num_digits = description["arguments"]["image_size"], description["num_digits"]
    threshold = description.get("rejection_threshold", DEFAULT_THRESHOLD)
    return Reader(model, image_size, num_digits, threshold, known_error(path))


def read(reader: Reader, ink: np.ndarray) -> Reading:
    """Read ink [h, w] of any size, see `capsnet.reading.handwriting.read_handwriting`.

    The right size of two overlapping digits depends on their distance. The size with the best
    reconstruction is chosen.
    """
    boxes = [DIGIT_BOX]
    if reader.num_digits > 1:
        boxes = [PAIR_BOX] if reader.model.decoder is None else PAIR_BOXES
    if lies_as_trained(ink, reader.image_size, boxes, PAIR_SHIFT if reader.num_digits > 1 else 1):
        taken, why, images = ink, None, [ink.astype(np.float32)]
    else:
        taken, why = choose_marks(ink, reader.num_digits)
        images = [fit(taken, image_size=reader.image_size, box_size=box) for box in boxes]
    reading = min((read_image(reader, image) for image in images), key=Reading.misfit)
    return reading._replace(taken=taken, reason=why or reading.reason)


def answer(reading: Reading, reader: Reader) -> dict[str, object]:
    """A reading as JSON: the fields of `capsnet.predict --json` and of the served model."""
    error, source = reader.error or (None, None)
    return {
        "digits": list(reading.digits),
        "lengths": [round(float(length), 4) for length in reading.lengths],
        "rejected": reading.rejected,
        "reason": reading.reason,
        "error": error,
        "error_source": source,
    }


@torch.inference_mode()
def read_image(reader: Reader, image: np.ndarray) -> Reading:
    """Read an image float32 [h, w] of the network's size."""
    images = torch.from_numpy(image)[None, None]
    lengths, capsules = predict(reader.model, images, torch.float32)
    if capsules is None:
        lengths = probabilities(lengths, reader.num_digits)
    digits = choose_digits(lengths[0], reader.num_digits)
    reason, drawn = None, None
    if reader.model.decoder is not None:
        labels = torch.tensor([digits])
        drawn = decode(reader.model, capsules, labels)
        likeness, share = rejection_factors(images, lengths, labels, drawn)
        if not likeness * share > reader.rejection_threshold:
            reason = UNLIKE if likeness < share else rival(lengths[0], digits)
        drawn = drawn[0].numpy()
    if not lengths.max() > THRESHOLD:
        reason = NO_CAPSULE if capsules is not None else NO_PROBABILITY
    return Reading(image, lengths[0].numpy(), digits, reason, drawn)


def rival(lengths: Tensor, digits: tuple[int, ...]) -> str:
    """Name the longest capsule of [j] that is not among `digits`."""
    others = lengths.index_fill(0, torch.tensor(digits), 0)
    return f"{others.argmax()} ({others.max():.2f}) is a rival"


def choose_digits(lengths: Tensor, num_digits: int) -> tuple[int, ...]:
    """The digits of the capsules [j] longer than THRESHOLD, longest first: one to `num_digits`."""
    longest = lengths.topk(num_digits)
    count = max(1, int((longest.values > THRESHOLD).sum()))
    return tuple(longest.indices[:count].tolist())
