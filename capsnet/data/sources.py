"""The sources of digits: each writes MNIST's four archives to a folder."""

import hashlib
import shutil
import socket
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np

from capsnet.data.archives import ARCHIVES, write_idx
from capsnet.paths import from_root

TIMEOUT = 30  # seconds without an answer
SPLITS = {"train": slice(1500), "test": slice(1500, None)}  # of scikit-learn's 1,797 digits


def fetch_mnist(folder: Path, mirrors: Sequence[str]) -> None:
    """Get each archive from the first mirror that has it with the right MD5.

    Raises ValueError if no mirror has it.
    """
    from torchvision.datasets import MNIST  # takes seconds to import

    socket.setdefaulttimeout(TIMEOUT)
    for archive, md5 in MNIST.resources:
        problems = []
        for mirror in mirrors:
            try:
                fetch(mirror, archive, folder, md5)
                break
            except (OSError, HTTPException, RuntimeError, ValueError) as error:
                problems.append(f"{mirror} ({getattr(error, 'strerror', None) or error})")
                print(f"{archive}: {problems[-1]}")
        else:
            raise ValueError(
                f"no mirror gave {archive}; tried {', '.join(problems)}. Ways out: "
                f"MNIST_MIRROR=<folder or URL with the four archives> dvc repro; "
                f"without any download: dvc exp run -S budget=quick; "
                f"digits of your own: docs/extending.md, A data set"
            )


def fetch(mirror: str, archive: str, folder: Path, md5: str) -> None:
    """Download one archive, or copy it from a folder (a path or a file:// URL).

    Raises RuntimeError if its MD5 is another one.
    """
    from torchvision.datasets.utils import download_url

    url, file = urlparse(mirror), folder / archive
    file.unlink(missing_ok=True)  # download_url keeps the one of another mirror
    if url.scheme in ("http", "https"):
        download_url(f"{mirror.rstrip('/')}/{archive}", folder, archive)
    else:
        source = url2pathname(url.path) if url.scheme == "file" else mirror
        shutil.copyfile(from_root(source) / archive, file)
    found = hashlib.md5(file.read_bytes()).hexdigest()
    if found != md5:
        raise RuntimeError(f"its MD5 is {found}, MNIST's is {md5}")


def write_small_digits(folder: Path) -> None:
    """Write scikit-learn's 8x8 digits as if they were MNIST."""
    from sklearn.datasets import load_digits  # takes seconds to import

    small = load_digits()
    images = np.stack([as_mnist(image / 16) for image in small.images])
    for split, part in SPLITS.items():
        images_name, labels_name = ARCHIVES[split]
        write_idx(folder / images_name, images[part])
        write_idx(folder / labels_name, small.target[part])


def as_mnist(image: np.ndarray) -> np.ndarray:
    """Scale the ink's longer side to 20 px and centre its mass in 28x28, as MNIST does: uint8."""
    from scipy.ndimage import center_of_mass
    from skimage.transform import resize

    rows, columns = np.nonzero(image)
    cropped = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = (max(1, round(side * 20 / max(cropped.shape))) for side in cropped.shape)
    scaled = resize(cropped, (height, width), order=3).clip(0, 1)
    corner = np.rint(13.5 - np.array(center_of_mass(scaled)))
    top, left = corner.clip(0, (28 - height, 28 - width)).astype(int)
    canvas = np.zeros((28, 28))
    canvas[top : top + height, left : left + width] = scaled
    return np.rint(canvas * 255).astype(np.uint8)
