"""A folder of pictures, one sub-folder a class, as images of one size.

The layout is that of torchvision's ImageFolder. PNG, JPEG, WebP, GIF (the first frame) and TIFF may
have any size, mode and EXIF orientation.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from capsnet.data.batches import seeded_generator
from capsnet.data.mnist import About, Digits, split_validation

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF")
KNOWN, ANY = "as PNG, JPEG, WebP, GIF or TIFF", "in a format that Pillow knows"
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # at byte 8
COLOUR = 8  # largest difference of red, green and blue, of 255, in a picture that counts as grey
NAMED = 10  # unreadable files in an error, at most
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")
MOST_CLASSES = 256  # labels are bytes


def load_folder(
    path: Path,
    *,
    image_size: int,
    background: str = "black",
    test_fraction: float = 0.2,
    skip_broken: bool = False,
) -> dict[str, Digits]:
    """The training and test images: those of `train/` and `test/` if both exist, else the share
    `test_fraction` of each class is drawn for the test, the same each time.

    See `prepare` for `image_size` and `background`. Images are of colour if any picture is. Raises
    ValueError for a folder without two classes and for unreadable files unless `skip_broken`.
    """
    if not path.is_dir():
        raise ValueError(f"data.folder: there is no folder {str(path)!r}")
    roots = [path / "train", path / "test"]
    if roots[0].is_dir() != roots[1].is_dir():
        raise ValueError(f"{path}: got one of train/ and test/, wanted both or neither")
    roots = roots if roots[0].is_dir() else [path]
    classes = class_folders(roots[0])
    names = tuple(classes)
    if not 2 <= len(names) <= MOST_CLASSES:
        found = ", ".join(names) if len(names) < 2 else len(names)
        wanted = f"one for each class, 2 to {MOST_CLASSES}"
        raise ValueError(f"{roots[0]}: got the sub-folders {found or 'none'}, wanted {wanted}")
    pictures, labels, sizes, broken = [], [], [], []
    for root in roots:
        folders = class_folders(root)
        if unknown := [name for name in folders if name not in classes]:
            raise ValueError(f"{root}: {', '.join(unknown)}: no such class in {roots[0]}")
        here = [n for n, name in enumerate(names) if name in folders]
        for label, file in ((n, file) for n in here for file in files(folders[names[n]])):
            try:
                pictures.append(prepare(read_picture(file.read_bytes()), image_size, background))
                labels.append(label)
            except (OSError, ValueError) as error:
                broken.append(f"{file}: {error}")
        sizes.append(len(labels))
    report_broken(broken, len(labels) + len(broken), skip_broken)
    found = torch.tensor(labels)
    if empty := [names[n] for n in range(len(names)) if n not in labels[: sizes[0]]]:
        raise ValueError(f"{roots[0]}: no pictures of {', '.join(empty)}")
    about = About(names, pictures=(image_size, background))
    whole = Digits(torch.from_numpy(of_one_mode(pictures)), found, about)
    if len(roots) == 1:
        drawn, name = seeded_generator("test split"), "data.test_fraction"
        train, test = split_validation(whole, test_fraction, drawn, name=name)
        if few := [names[n] for n in range(len(names)) if n not in train.labels]:
            raise ValueError(
                f"{path}: the test takes the only picture of {', '.join(few)}: add pictures, lower "
                f"{name} or sort them into train/ and test/"
            )
    else:
        here = torch.arange(len(found))
        train, test = whole.pick(here < sizes[0]), whole.pick(here >= sizes[0])
        test = test.pick(in_turn(test.labels))
    if not len(test):
        raise ValueError(f"{roots[1]}: no pictures")
    return {"train": train, "test": test}


def in_turn(labels: Tensor) -> Tensor:
    """Positions in which sorted labels take turns, so that the first images show all classes."""
    ranks = [torch.arange(count) for count in labels.bincount().tolist()]
    return torch.cat(ranks).argsort(stable=True) if ranks else labels


def class_folders(root: Path) -> dict[str, Path]:
    """The sub-folders by name, in natural order: 2 before 10, in any language."""
    found = [each for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")]
    # macOS decomposes umlauts in file names.
    names = {unicodedata.normalize("NFC", each.name): each for each in found}
    return dict(sorted(names.items(), key=lambda each: natural(each[0])))


def natural(name: str) -> list[str | int]:
    """Sort key: text without case, numbers by value, accents after their letter."""
    parts = re.split(r"(\d+)", unicodedata.normalize("NFD", name.casefold()))
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*"), key=lambda each: natural(str(each))):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part.casefold() in SYSTEM_FILES for part in parts)
        if path.is_file() and not hidden:
            yield path


def report_broken(broken: list[str], total: int, skip: bool) -> None:
    """Name and count the unreadable files. Raises ValueError unless they are to be skipped."""
    if not broken:
        return
    more = [f"and {len(broken) - NAMED} more"] if len(broken) > NAMED else []
    lines = [*broken[:NAMED], *more, f"{len(broken)} of {total} files cannot be read"]
    if not skip:
        lines[-1] += ": mend or remove them, or set data.skip_broken: true"
        raise ValueError("\n".join(lines))
    print("\n".join([*lines[:-1], f"{lines[-1]} and are left out"]))


def decode(data: bytes, formats: Sequence[str] | None = None) -> Image.Image:
    """Decode a picture, upright, of any format of Pillow by default. ValueError with the reason."""
    try:
        with warnings.catch_warnings(action="ignore"):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as image:
                return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS // 10**6
        raise ValueError(f"larger than {limit} million pixels: make it smaller") from None
    except Image.UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in HEIC:  # whatever the file's name
            raise ValueError("HEIC, which Pillow does not read: save it as JPEG or PNG") from None
        raise ValueError(f"not a picture {KNOWN if formats else ANY}") from None
    except Exception as error:  # the decoders of broken files raise nearly anything
        raise ValueError(f"not a whole picture ({' '.join(str(error).split())})") from None


def read_picture(data: bytes) -> Image.Image:
    """Decode a picture, upright, in mode L, LA, RGB or RGBA. Raises ValueError with the reason.

    White is 65,535 of 16 bits; of other wide formats 1, 255 or 65,535, the least that fits.
    """
    image = decode(data, FORMATS)
    if image.mode[0] in "IF":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        white = 65535 if ";16" in image.mode else min(
            (white for white in (1, 255, 65535) if values.max() <= white), default=values.max()
        )  # fmt: skip
        return Image.fromarray((255 * values / white).clip(0, 255).round().astype(np.uint8))
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return image.convert("RGBA").convert("LA" if grey else "RGBA")
    return image.convert("L" if grey else "RGB")


def prepare(image: Image.Image, image_size: int, background: str) -> np.ndarray:
    """Flatten onto the background, scale the longer side to `image_size`, pad the other one with
    the background: uint8 [h, w] or [3, h, w].

    Pictures on white are inverted, so that the background is always 0.
    """
    white = 255 * (background == "white")
    opaque = image.mode.removesuffix("A")
    if opaque != image.mode:
        under = Image.new(image.mode, image.size, (white,) * len(opaque) + (255,))
        image = Image.alpha_composite(under.convert("RGBA"), image.convert("RGBA"))
    size = (image_size, image_size)
    scaled = ImageOps.pad(image.convert(opaque), size, color=(white,) * len(opaque))
    pixels = np.array(scaled)
    pixels = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels
    return 255 - pixels if white else pixels


def of_one_mode(pictures: list[np.ndarray]) -> np.ndarray:
    """All grey, [n, h, w], or all of colour, [n, 3, h, w], if one of them is."""
    if all(each.ndim == 2 or np.ptp(each, axis=0).max() <= COLOUR for each in pictures):
        return np.stack([each if each.ndim == 2 else grey(each) for each in pictures])
    return np.stack([np.broadcast_to(each, (3, *each.shape[-2:])) for each in pictures])


def grey(pixels: np.ndarray) -> np.ndarray:
    """Uint8 [h, w] of colours [3, h, w], as Pillow weighs them."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L"))
