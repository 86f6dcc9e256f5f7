"""affNIST from its own files (Tieleman, https://www.cs.toronto.edu/~tijmen/affNIST/).

MNIST's digits, rotated, sheared, scaled and moved on a 40x40 canvas: MATLAB files (version 5) that
hold a struct `affNISTdata`. Of its fields we read `image`, uint8 [1600, n] with an image in each
column, and `label_int`, uint8 [1, n]. The test set is `transformed/test_batches/1.mat` to
`32.mat`, each with another transform of every one of MNIST's 10,000 test digits, or all of them in
`transformed/test.mat`.

Although MATLAB stores columns first, a column holds its image row by row, as MNIST's own bytes do:
nothing is transposed within an image. We know it from programs that train on MNIST's upright digits
and read affNIST this way, such as that of Rawlinson, Ahmed and Kowadlo (arXiv 1804.06094): on
transposed digits it would not have reached its 90 %.
"""

import zlib
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from capsnet.data.archives import NUM_CLASSES
from capsnet.data.mnist import Digits
from capsnet.data.transforms import AFFNIST_SIZE

STRUCT, IMAGE, LABEL = "affNISTdata", "image", "label_int"
UNREADABLE = (OSError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error)


def load_affnist(path: Path) -> Digits:
    """Read one .mat file, or all of a folder in the order of their numbers: images uint8 [n, 40,
    40].

    Raises ValueError naming the file, what was found there and what is wanted.
    """
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.mat"), key=lambda file: (len(file.stem), file.stem))
        if not files:
            raise ValueError(
                f"{path}: no .mat file, but affNIST's test batches are 1.mat to 32.mat"
            )
    parts = [read_batch(file) for file in files]
    return Digits(*(torch.cat(field) for field in zip(*parts, strict=True)))


def read_batch(path: Path) -> Digits:
    """Read one of affNIST's .mat files; errors as `load_affnist`."""
    if not path.exists():
        raise ValueError(f"{path} is missing: affNIST is a .mat file or a folder of them")
    try:
        content = loadmat(path)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a MATLAB file of version 5 ({reason})") from None
    images, labels = _field(path, content, IMAGE), _field(path, content, LABEL)
    if images.dtype != np.uint8 or images.ndim != 2 or len(images) != AFFNIST_SIZE**2:
        raise ValueError(
            f"{path}: {IMAGE} is {images.dtype} {list(images.shape)}, but affNIST's is uint8 "
            f"[{AFFNIST_SIZE**2}, n]"
        )
    count = images.shape[1]
    if labels.shape != (1, count):
        raise ValueError(
            f"{path}: {LABEL} is {list(labels.shape)}, but {count:,} images have [1, {count}]"
        )
    if count and labels.max() >= NUM_CLASSES:
        raise ValueError(f"{path}: label {labels.max()}, but digits are 0 to 9")
    pixels = np.ascontiguousarray(images.T).reshape(count, AFFNIST_SIZE, AFFNIST_SIZE)
    return Digits(torch.from_numpy(pixels), torch.from_numpy(labels[0].astype(np.int64)))


def _field(path: Path, content: dict[str, object], name: str) -> np.ndarray:
    struct = content.get(STRUCT)
    if struct is None:
        names = ", ".join(key for key in content if not key.startswith("__")) or "nothing"
        raise ValueError(f"{path}: holds {names}, but affNIST's files hold {STRUCT}")
    fields = struct.dtype.names or ()
    if struct.size != 1 or name not in fields:
        found = ", ".join(fields) or "no fields"
        raise ValueError(f"{path}: {STRUCT} has {found}, but affNIST's has {IMAGE} and {LABEL}")
    return struct.item()[fields.index(name)]
