"""The data sets: one function each, (folder for archives, settings) -> training and test images.

Archives, mirrors and checksums are torchvision's. A new data set is a function here and an entry of
the same name in `capsnet.data.registry`.
"""

import hashlib
import shutil
import socket
from collections.abc import Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from capsnet.data.archives import TEN_DIGITS
from capsnet.data.mnist import About, Digits, load_digits
from capsnet.data.pictures import load_folder, prepare
from capsnet.data.registry import DATA_SETS
from capsnet.paths import from_root

COMPRESSED = (".gz", ".bz2", ".zip", ".mat")  # with checksums, not their contents
TIMEOUT = 30  # seconds without an answer
SPLITS = {"train": slice(1500), "test": slice(1500, None)}  # of scikit-learn's 1,797 digits


class Settings(NamedTuple):
    """`mirrors` of MNIST in turn; `local`, a folder with the archives of another set; for all sets
    `image_size` in pixels and `combine`; the others are of `load_folder`.
    """

    mirrors: Sequence[str] = ()
    local: str | None = None
    image_size: int = 28
    combine: str = "sum"
    folder: str = ""
    background: str = "black"
    test_fraction: float = 0.2
    skip_broken: bool = False


def make(name: str, out: Path, settings: Settings) -> dict[str, Digits]:
    """The images "train" and "test" of a data set, at the size of the settings."""
    splits, size, data_set = globals()[name](out, settings), settings.image_size, DATA_SETS[name]
    images = {split: resized(digits.images, size) for split, digits in splits.items()}
    about, (box, centre) = splits["train"].about, framing(images["train"])
    about = about._replace(
        combine=settings.combine,
        pictures=about.pictures or (None if data_set.handwriting else (size, "black")),
        noun=data_set.noun,
        box=box,
        centre=centre,
    )
    return {split: Digits(images[split], digits.labels, about) for split, digits in splits.items()}


def framing(images: Tensor) -> tuple[int, str]:
    """The longer side in pixels of the box around what is brighter than 0.3 of white, which noise
    is not, the median; and the centre that moves less between images, of the "mass" or the "box".
    """
    grey = images.amax(dim=1) if images.ndim == 4 else images
    bright, size = torch.where(grey > 76, grey, 0), grey.shape[-1]
    sides, boxes, masses = [], [], []
    for dim in (1, 2):
        profile = bright.sum(dim=dim)
        before, after = ((each > 0).long().argmax(dim=1) for each in (profile, profile.flip(1)))
        sides.append(profile.any(dim=1) * (size - before - after))
        boxes.append((before - after) / 2)  # from the middle of the image
        moments = (profile * (torch.arange(size) - (size - 1) / 2)).sum(dim=1)
        masses.append(moments / profile.sum(dim=1).clamp_min(1))
    box, mass = (torch.stack(each).std(dim=1, correction=0).sum() for each in (boxes, masses))
    return max(1, int(torch.maximum(*sides).median())), "box" if box < mass else "mass"


def resized(images: Tensor, size: int) -> Tensor:
    """Images scaled to `size` pixels."""
    if size == images.shape[-1]:
        return images
    last = images.movedim(1, -1) if images.ndim == 4 else images
    pictures = (prepare(Image.fromarray(each), size, "black") for each in last.numpy())
    return torch.from_numpy(np.stack(list(pictures)))


def mnist(out: Path, settings: Settings) -> dict[str, Digits]:
    """MNIST's archives stay in `out` as they are unless its images are scaled."""
    with TemporaryDirectory(dir=out) as work:
        place = out if settings.image_size == 28 else Path(work)
        fetch_mnist(place, settings.mirrors)
        return {split: load_digits(place, split) for split in SPLITS}


def scikit_learn(out: Path, settings: Settings) -> dict[str, Digits]:
    """The 8x8 digits of scikit-learn, enlarged and centred as MNIST's."""
    from sklearn.datasets import load_digits  # takes seconds to import

    small = load_digits()
    images = torch.from_numpy(np.stack([as_mnist(image / 16) for image in small.images]))
    labels = torch.from_numpy(small.target)
    return {split: Digits(images[part], labels[part]) for split, part in SPLITS.items()}


def folder(out: Path, settings: Settings) -> dict[str, Digits]:
    names = ("image_size", "background", "test_fraction", "skip_broken")
    return load_folder(Path(settings.folder), **{name: getattr(settings, name) for name in names})


def from_torchvision(
    name: str, out: Path, settings: Settings, *, splits: dict[str, dict] | None = None,
    names: Sequence[str] | None = None, **options: str
) -> dict[str, Digits]:  # fmt: skip
    """The splits of a class of torchvision.datasets, by default those of `train`. Archives of the
    folder `settings.local` are not downloaded.
    """
    from torchvision import datasets  # takes seconds to import

    socket.setdefaulttimeout(TIMEOUT)
    cls, found = getattr(datasets, name), {}
    splits = splits or {"train": {"train": True}, "test": {"train": False}}
    with TemporaryDirectory(dir=out) as work:
        raw = Path(work, name, "raw") if issubclass(cls, datasets.MNIST) else Path(work)
        raw.mkdir(parents=True, exist_ok=True)
        if settings.local:
            copy_archives(from_root(settings.local), raw)
        for split, arguments in splits.items():
            try:
                data = cls(work, download=True, **arguments, **options)
            except (OSError, HTTPException, RuntimeError) as error:
                without = "to take its archives from a folder: DATA_MIRROR=<folder> dvc repro"
                lacking = f"{settings.local} lacks an archive with the MD5 of torchvision"
                what = lacking if settings.local else without
                raise ValueError(f"no {name} ({' '.join(str(error).split())}): {what}") from None
            found[split] = as_digits(data, names or data.classes)
    return found


def copy_archives(source: Path, folder: Path) -> None:
    if not source.is_dir():
        raise ValueError(f"DATA_MIRROR: there is no folder {str(source)!r}")
    for archive in source.iterdir():
        if archive.suffix in COMPRESSED:
            shutil.copy(archive, folder)


def as_digits(data: object, names: Sequence[str]) -> Digits:
    """The images of a data set of torchvision, upright, and its labels from 0."""
    images = torch.as_tensor(data.data)
    labels = torch.as_tensor(data.labels if hasattr(data, "labels") else data.targets).long()
    labels = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST's first column is the class
    if type(data).__name__ == "EMNIST":
        images = images.mT  # stored column by column
    unused = sum(name == "N/A" for name in names)  # the letters of EMNIST begin with 1
    return Digits(images.contiguous(), labels - unused, About(tuple(names[unused:])))


fashion_mnist = partial(from_torchvision, "FashionMNIST")
kmnist = partial(from_torchvision, "KMNIST")
qmnist = partial(from_torchvision, "QMNIST", names=TEN_DIGITS)  # 60,000 test digits
emnist_letters = partial(from_torchvision, "EMNIST", split="letters")
emnist_balanced = partial(from_torchvision, "EMNIST", split="balanced")
svhn = partial(
    from_torchvision, "SVHN", splits={name: {"split": name} for name in SPLITS}, names=TEN_DIGITS
)


def fetch_mnist(folder: Path, mirrors: Sequence[str]) -> None:
    """Get each archive from the first mirror that has it with the right MD5, else ValueError."""
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
                f"pictures of your own: docs/data.md"
            )


def fetch(mirror: str, archive: str, folder: Path, md5: str) -> None:
    """Download one archive or copy it from a path or file:// URL. RuntimeError for another MD5."""
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
