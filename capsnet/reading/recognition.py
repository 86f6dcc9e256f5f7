"""Recognise what a picture shows, with reconstructions and a rejection option."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from capsnet import checkpoint
from capsnet.data.mnist import About
from capsnet.data.multimnist import shift
from capsnet.data.pictures import prepare, read_picture
from capsnet.learning.evaluation import decode, predict
from capsnet.learning.rejection import DEFAULT_THRESHOLD, rejection_factors
from capsnet.losses import THRESHOLD, probabilities
from capsnet.reading.errors import KnownError, known_error
from capsnet.reading.handwriting import THINNEST, fit, lies_as_trained, read_handwriting
from capsnet.reading.page import choose_marks

# As shares of the box around one digit:
PAIR_BOXES = (1.0, 1.1, 1.2, 1.3)  # around two overlapping digits, 90 % of MultiMNIST
PAIR_BOX = 1.15  # their mean
PAIR_SHIFT = 0.25  # between the centre of mass of two digits and the middle, at most
DIGIT_SHIFT = 0.05  # of one digit
PAIR_THINNEST = 0.08  # a stroke of two overlapping digits: wider ones hide each other
NO_CAPSULE = f"no capsule is longer than {THRESHOLD}"
NO_PROBABILITY = f"no class has a probability above {THRESHOLD}"
UNLIKE = "the reconstruction does not resemble the picture"


class Reader(NamedTuple):
    """A network for images of `image_size` px with up to `num_digits` digits. Scores below
    `rejection_threshold` are rejected. `error` is the known test or validation error, `about` the
    data set of its training.
    """

    model: nn.Module
    image_size: int
    num_digits: int
    rejection_threshold: float = DEFAULT_THRESHOLD
    error: KnownError | None = None
    about: About = About()
    num_channels: int = 1

    @property
    def warning(self) -> str:
        return self.error.warning(self.num_digits, self.about.noun) if self.error else ""


class Reading(NamedTuple):
    """The prediction for one picture: the network's input [(c,) h, w], lengths [j] (probabilities
    of a network without capsules), the predicted digits by falling length, the reason for a
    rejection, the reconstructions of the digits [k, (c,) h, w], None without a decoder, the names
    of all classes, and the ink of the picture that was taken for the digits, in the picture's own
    pixels, None where all of it was.
    """

    image: np.ndarray
    lengths: np.ndarray
    digits: tuple[int, ...]
    reason: str | None
    reconstructions: np.ndarray | None
    classes: tuple[str, ...] = About().classes
    taken: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        return [self.classes[digit] for digit in self.digits]

    @property
    def rejected(self) -> bool:
        return self.reason is not None

    def lines(self) -> list[str]:
        return [f"{self.classes[n]} ({self.lengths[n]:.2f})" for n in self.digits]

    def misfit(self) -> float:
        """Squared error of the reconstruction relative to the image; 0 without a decoder."""
        if self.reconstructions is None:
            return 0.0
        drawn = self.reconstructions.sum(axis=0).clip(max=1)
        return float(np.square(drawn - self.image).sum() / np.square(self.image).sum())


def load_reader(path: str | Path) -> Reader:
    """Load a checkpoint. Raises ValueError for another file."""
    model, description = checkpoint.load(path), checkpoint.describe(path)
    arguments, num_digits = description["arguments"], description["num_digits"]
    threshold = description.get("rejection_threshold", DEFAULT_THRESHOLD)
    return Reader(
        model,
        arguments["image_size"],
        num_digits,
        threshold,
        known_error(path),
        checkpoint.about(description),
        arguments.get("num_channels", 1),
    )


def read_file(reader: Reader, file: Path | bytes) -> Reading:
    """Read a picture file or its bytes, prepared as the network's training images were. Raises
    ValueError for a file that is no picture.
    """
    if reader.about.pictures is None:
        return read(reader, read_handwriting(file))
    size, background = reader.about.pictures
    try:
        picture = read_picture(file.read_bytes() if isinstance(file, Path) else file)
    except (OSError, ValueError) as error:
        name = file if isinstance(file, Path) else "the picture"
        raise ValueError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    mode = ("L", "RGB")[reader.num_channels > 1] + "A" * picture.mode.endswith("A")
    pixels = torch.from_numpy(prepare(picture.convert(mode), size, background))
    image = shift(pixels, torch.zeros(*(1,) * (pixels.ndim - 2), 2).long(), reader.image_size)
    return read_image(reader, (image / 255).numpy())


def read(reader: Reader, ink: np.ndarray) -> Reading:
    """Read ink [h, w] of any size, see `capsnet.reading.handwriting.read_handwriting`.

    The right size of two overlapping digits depends on their distance. The size with the best
    reconstruction is chosen. Where training images were framed by the box of all their ink, as
    letters of several strokes are, all ink of the picture is taken.
    """
    size, box, pair = reader.image_size, reader.about.box, reader.num_digits > 1
    centre = reader.about.centre
    shares = [1]
    if pair:
        shares = [PAIR_BOX] if reader.model.decoder is None else PAIR_BOXES
    boxes = [min(size, round(box * share)) for share in shares]
    if lies_as_trained(ink, size, boxes, box * (PAIR_SHIFT if pair else DIGIT_SHIFT), centre):
        taken, why, images = ink, None, [ink.astype(np.float32)]
    else:
        taken, why = ink, None
        if centre == "mass":
            taken, why = choose_marks(ink, reader.num_digits)
        thinnest = box * (PAIR_THINNEST if pair else THINNEST / About().box)
        how = {"image_size": size, "thinnest": thinnest, "centre": centre}
        images = [fit(taken, box_size=each, **how) for each in boxes]
    reading = min((read_image(reader, image) for image in images), key=Reading.misfit)
    return reading._replace(taken=taken, reason=why or reading.reason)


def answer(reading: Reading, reader: Reader) -> dict[str, object]:
    """A reading as JSON: the fields of `capsnet.predict --json` and of the served model."""
    error, source = reader.error or (None, None)
    return {
        "digits": list(reading.digits),
        "classes": reading.names,
        "lengths": [round(float(length), 4) for length in reading.lengths],
        "rejected": reading.rejected,
        "reason": reading.reason,
        "error": error,
        "error_source": source,
    }


@torch.inference_mode()
def read_image(reader: Reader, image: np.ndarray) -> Reading:
    """Read an image float32 [h, w], or [3, h, w] of colour, of the network's size."""
    images = torch.from_numpy(image)
    images = images.expand(1, reader.num_channels, *images.shape[-2:])
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
            reason = UNLIKE if likeness < share else rival(lengths[0], digits, reader.about.classes)
        drawn = drawn[0].numpy()
    if not lengths.max() > THRESHOLD:
        reason = NO_CAPSULE if capsules is not None else NO_PROBABILITY
    return Reading(image, lengths[0].numpy(), digits, reason, drawn, reader.about.classes)


def rival(lengths: Tensor, digits: tuple[int, ...], classes: tuple[str, ...]) -> str:
    """Name the longest capsule of [j] that is not among `digits`."""
    others = lengths.index_fill(0, torch.tensor(digits), 0)
    return f"{classes[int(others.argmax())]} ({others.max():.2f}) is a rival"


def choose_digits(lengths: Tensor, num_digits: int) -> tuple[int, ...]:
    """The digits of the capsules [j] longer than THRESHOLD, longest first: one to `num_digits`."""
    longest = lengths.topk(num_digits)
    count = max(1, int((longest.values > THRESHOLD).sum()))
    return tuple(longest.indices[:count].tolist())
