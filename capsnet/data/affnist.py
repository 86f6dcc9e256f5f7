"""affNIST's own files (Tieleman, https://www.cs.toronto.edu/~tijmen/affNIST/).

The MATLAB files (version 5) hold a struct `affNISTdata` with `image`, uint8 [1600, n], and
`label_int`, uint8 [1, n]. The test set is `transformed/test_batches/1.mat` to `32.mat`. A column
holds an image row by row, although MATLAB stores columns first: programs that train on MNIST read
it this way (Rawlinson, Ahmed & Kowadlo, arXiv 1804.06094).
"""

from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat

from capsnet.data.archives import TEN_DIGITS
from capsnet.data.mnist import Digits
from capsnet.data.transforms import AFFNIST_SIZE
from capsnet.paths import from_root


def load_affnist(path: Path) -> Digits:
    """A .mat file, or all of a folder by number: images [n, 40, 40]. ValueError for a wrong one."""
    path = from_root(path)
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.mat"), key=lambda file: (len(file.stem), file.stem))
    if not files or not files[0].exists():
        raise ValueError(
            f"{path} is missing: affNIST is a .mat file or a folder of 1.mat to 32.mat"
        )
    parts = [read_batch(file) for file in files]
    return Digits(*(torch.cat([part[n] for part in parts]) for n in (0, 1)))


def read_batch(path: Path) -> Digits:
    """Read one .mat file. Raises ValueError for a wrong one."""
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises nearly anything for broken files
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a MATLAB file of version 5 ({reason})") from None
    try:
        images, labels = (content["affNISTdata"][name][0, 0] for name in ("image", "label_int"))
    except (KeyError, ValueError, IndexError):
        raise ValueError(f"{path}: no struct affNISTdata with image and label_int") from None
    count, size = images.shape[-1], AFFNIST_SIZE
    if images.dtype != np.uint8 or images.shape != (size**2, count) or labels.shape != (1, count):
        found = f"{images.dtype} {list(images.shape)} and {list(labels.shape)}"
        raise ValueError(
            f"{path}: image and label_int are {found}, but wanted uint8 [{size**2}, n] and [1, n]"
        )
    if count and labels.max() >= len(TEN_DIGITS):
        raise ValueError(f"{path}: label {labels.max()}, but digits are 0 to 9")
    pixels = np.ascontiguousarray(images.T).reshape(count, size, size)
    return Digits(torch.from_numpy(pixels), torch.from_numpy(labels[0].astype(np.int64)))
