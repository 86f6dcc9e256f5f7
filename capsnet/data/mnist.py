"""MNIST from its own files: IDX bytes -> Digits, and the cut into training and validation digits.

The IDX format (http://yann.lecun.com/exdb/mnist, "FILE FORMATS"): two zero bytes, a type code (8 =
unsigned byte), the number of dimensions, one big-endian 32-bit size per dimension, then the bytes.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ARCHIVES = {  # split -> (images, labels)
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
NUM_CLASSES = 10
UNSIGNED_BYTE = 8


class Digits(NamedTuple):
    """Handwritten digits: images uint8 [n, 28, 28], 0 black to 255 white; labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:  # the number of digits, not of fields
        return self.labels.shape[0]

    def to(self, device: torch.device | str) -> "Digits":
        return Digits(self.images.to(device), self.labels.to(device))


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX archive of unsigned bytes.

    Raises ValueError, naming the file, if it is not gzip, not IDX, or shorter or longer than its
    header says.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{path} is missing: run `dvc repro download`") from None
        raise ValueError(
            f"{path} is not a whole gzip file ({error}): run `dvc repro download`"
        ) from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != UNSIGNED_BYTE:
        raise ValueError(
            f"{path}: starts with {data[:4].hex()}, but an IDX file of bytes starts with 000008"
        )
    num_dimensions = data[3]
    start = 4 + 4 * num_dimensions
    shape = struct.unpack_from(f">{num_dimensions}I", data, 4) if len(data) >= start else ()
    expected = math.prod(shape)
    if len(data) - start != expected:
        raise ValueError(
            f"{path}: {max(0, len(data) - start):,} bytes of data, but its header says {expected:,}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes as a gzipped IDX archive; the same array gives the same bytes."""
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))


def load_digits(folder: Path, split: str) -> Digits:
    """Read the digits of one split ("train" or "test") from the four archives in `folder`."""
    images_name, labels_name = ARCHIVES[split]
    images, labels = read_idx(folder / images_name), read_idx(folder / labels_name)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{folder / images_name}: shape {images.shape}, but digits are [n, 28, 28]"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{folder}: {len(images):,} {split} images but {len(labels):,} labels")
    if labels.size and labels.max() >= NUM_CLASSES:
        raise ValueError(f"{folder / labels_name}: label {labels.max()}, but digits are 0 to 9")
    return Digits(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))


def split_validation(digits: Digits, fraction: float) -> tuple[Digits, Digits]:
    """Cut the last `fraction` off the training digits: (training, validation)."""
    size = round(len(digits) * fraction)
    cut = len(digits) - size
    return (
        Digits(digits.images[:cut], digits.labels[:cut]),
        Digits(digits.images[cut:], digits.labels[cut:]),
    )
