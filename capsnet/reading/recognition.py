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
from capsnet.learning.evaluation import decode, predict
from capsnet.learning.rejection import USUAL_LIMIT, evidence
from capsnet.losses import THRESHOLD, probabilities
from capsnet.reading.errors import KnownError, known_error
from capsnet.reading.handwriting import fit

PAIR_IMAGE_SIZE = 36  # networks for images of this size are trained on two digits, others on one
DIGIT_BOX = 20  # pixels, the longer side of the box around a digit (MNIST)
PAIR_BOXES = (20, 22, 24, 26)  # around two overlapping digits: 9 of 10 of MultiMNIST's are between
PAIR_BOX = 23  # their mean


class Reader(NamedTuple):
    """A network and the pictures that it was trained on: image_size in px, num_digits at most.

    Below `evidence_limit` it is unsure; `error` is how often it is wrong, where that is known.
    """

    model: nn.Module
    image_size: int
    num_digits: int
    evidence_limit: float = USUAL_LIMIT
    error: KnownError | None = None


class Reading(NamedTuple):
    """What a network sees in one picture.

    image float32 [h, w], as the network got it; lengths [10], of a baseline without capsules its
    probabilities; digits, the longest first; is_sure: one of them is longer than THRESHOLD, and the
    picture looks like them; reconstructions [k, h, w] of these digits, or None without a decoder,
    which leaves the lengths alone to decide.
    """

    image: np.ndarray
    lengths: np.ndarray
    digits: tuple[int, ...]
    is_sure: bool
    reconstructions: np.ndarray | None

    @property
    def drawn(self) -> np.ndarray:
        """The reconstructions of all digits read, together: [h, w]."""
        return self.reconstructions.sum(axis=0).clip(max=1)


def load_reader(path: str | Path) -> Reader:
    """Load a checkpoint. Raises ValueError, naming the file, if it is none of ours."""
    model = checkpoint.load(path)
    description = checkpoint.describe(path)
    image_size = description["arguments"]["image_size"]
    num_digits = 2 if image_size == PAIR_IMAGE_SIZE else 1
    limit = description.get("evidence_limit", USUAL_LIMIT)
    return Reader(model, image_size, num_digits, limit, known_error(path))


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
    is_sure, drawn = bool(lengths.max() > THRESHOLD), None
    if reader.model.decoder is not None:
        labels = torch.tensor([digits])
        drawn = decode(reader.model, capsules, labels)
        found = evidence(images, lengths, labels, drawn).item()
        is_sure, drawn = is_sure and found > reader.evidence_limit, drawn[0].numpy()
    return Reading(image, lengths[0].numpy(), digits, is_sure, drawn)


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
