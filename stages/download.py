"""Stage `download`: the digits, as MNIST's four archives, from a mirror or from scikit-learn.

Whatever the source, the folder then holds the same four files, so nothing after this stage asks
where they are from.
"""

import argparse
import os
import shutil
import socket
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np

from capsnet.config import Params, load
from capsnet.data.archives import ARCHIVES, write_idx
from stages.command import OVERRIDE, run

NUM_TRAINING_DIGITS = 1500  # of scikit-learn's 1,797: the last 297 are the test split
TIMEOUT = 30  # seconds without an answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the four archives")
    parser.add_argument("--override", type=Path, help=OVERRIDE)
    arguments = parser.parse_args()
    out, params = arguments.out, load(override=arguments.override)
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a download that was killed
    aside.mkdir(parents=True)
    try:
        if params.source == "mnist":
            fetch_mnist(aside, mirrors(params))
        else:
            write_small_digits(aside)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"digits from {params.source} are in {out}")


def mirrors(params: Params) -> list[str]:
    own = os.environ.get("MNIST_MIRROR")
    return [own] if own else list(params.data.mirrors)


def fetch_mnist(folder: Path, mirrors: list[str]) -> None:
    """Get each archive from the first mirror that has it with the right checksum."""
    from torchvision.datasets import MNIST  # seconds to import, as what it brings along

    socket.setdefaulttimeout(TIMEOUT)
    for archive, checksum in MNIST.resources:
        tried = []
        for mirror in mirrors:
            problem = fetch(mirror, archive, folder, checksum)
            if problem is None:
                break
            tried.append(f"{mirror} ({problem})")
            print(f"{archive}: {mirror}: {problem}")
        else:
            raise ValueError(
                f"no mirror gave {archive}; tried {', '.join(tried)}. Two ways out: "
                f"MNIST_MIRROR=<folder or URL with the four archives> dvc repro, "
                f"or without any download: dvc exp run -S budget=quick"
            )


def fetch(mirror: str, archive: str, folder: Path, checksum: str) -> str | None:
    """Copy or download one archive; None if it is there and right, else what is wrong."""
    from torchvision.datasets.utils import check_integrity, download_url

    target = folder / archive
    try:
        if urlparse(mirror).scheme in ("http", "https"):
            download_url(mirror.rstrip("/") + "/" + archive, str(folder), archive, checksum)
        else:
            shutil.copyfile(_local(mirror) / archive, target)
    except FileNotFoundError:
        return "not there"
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        if not target.exists():
            return f"no answer: {error}"
    if check_integrity(str(target), checksum):
        return None
    target.unlink(missing_ok=True)
    return f"wrong checksum, wanted MD5 {checksum}"


def _local(mirror: str) -> Path:
    """A folder, given as a path or as a file:// URL."""
    return Path(
        url2pathname(urlparse(mirror).path) if mirror.startswith("file:") else mirror
    ).expanduser()


def write_small_digits(folder: Path) -> None:
    """Write scikit-learn's 8x8 digits as if they were MNIST."""
    from sklearn.datasets import load_digits  # seconds to import, and only this budget needs it

    small = load_digits()
    images = np.stack([as_mnist(image / 16) for image in small.images])
    parts = {"train": slice(None, NUM_TRAINING_DIGITS), "test": slice(NUM_TRAINING_DIGITS, None)}
    for split, part in parts.items():
        images_name, labels_name = ARCHIVES[split]
        write_idx(folder / images_name, images[part])
        write_idx(folder / labels_name, small.target[part])


def as_mnist(image: np.ndarray) -> np.ndarray:
    """Scale and centre as MNIST does: longer side 20 px, centre of mass in the middle of 28x28;
    uint8.
    """
    from skimage.transform import resize

    rows, columns = np.nonzero(image > 0)
    cropped = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = 20 / max(cropped.shape)
    size = [max(1, round(side * scale)) for side in cropped.shape]
    scaled = resize(cropped, size, order=3).clip(0, 1)
    mass = scaled.sum()
    corner = []
    for axis, side in enumerate(size):
        centre = (scaled.sum(axis=1 - axis) * np.arange(side)).sum() / mass
        corner.append(int(np.clip(round(13.5 - centre), 0, 28 - side)))
    canvas = np.zeros((28, 28))
    canvas[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = scaled
    return np.rint(canvas * 255).astype(np.uint8)


if __name__ == "__main__":
    run(main, "download")
