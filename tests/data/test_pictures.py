"""A folder of pictures of every kind becomes images of one size, its sub-folders the classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from capsnet.data import sources
from capsnet.data.mnist import load_digits as load_images
from capsnet.data.mnist import save_digits
from capsnet.data.pictures import load_folder, natural, prepare, read_picture

RED = (200, 0, 0)


def blob(mode: str, size: tuple[int, int], color) -> Image.Image:
    """A rectangle in the middle of a dark picture."""
    image = Image.new(mode, size)
    image.paste(color, (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4))
    return image


def write_pictures(root, each: int = 4) -> None:
    """Three classes, different sizes, one CMYK, one palette PNG with transparency, one of 16 bits,
    one rotated by EXIF, WebP, GIF and TIFF, and one broken.
    """
    for name in ("Äpfel rot", "Birne 10", "Birne 2"):
        (root / name).mkdir(parents=True)
        for number in range(each):
            size = (20 + 7 * number, 33 - 5 * number)
            blob("L", size, 255 - 40 * number).save(root / name / f"bild {number}.png")
    red, two, ten = root / "Äpfel rot", root / "Birne 2", root / "Birne 10"
    blob("CMYK", (30, 20), (0, 255, 255, 55)).save(red / "cmyk.jpg", quality=100)
    palette = blob("RGB", (24, 24), RED).quantize(4)
    palette.save(red / "größe.png", transparency=palette.getpixel((0, 0)))
    Image.fromarray(np.full((16, 16), 32896, np.uint16)).save(two / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees to the right
    blob("RGB", (40, 10), RED).save(two / "turned.jpg", exif=exif, quality=100)
    for ending in ("webp", "gif", "tiff"):
        blob("L", (31, 31), 255).save(ten / f"one.{ending}")
    (ten / "broken.png").write_bytes((ten / "bild 0.png").read_bytes()[:40])
    (ten / ".hidden").touch()


def test_every_kind_of_picture_is_read(tmp_path, capsys):
    """19 of 20 files: 4 in each class and 2, 2 and 3 more. A fifth of them, rounded, is for the
    test. Red makes all of colour.
    """
    write_pictures(tmp_path)
    options = {"image_size": 16, "skip_broken": True}
    first, again = (load_folder(tmp_path, **options) for _ in range(2))
    assert "broken.png: " in (printed := capsys.readouterr().out)
    assert "1 of 20 files cannot be read and are left out" in printed
    train, test = first["train"], first["test"]
    assert train.classes == ("Äpfel rot", "Birne 2", "Birne 10")
    assert len(train) == 15 and len(test) == 4 and train.images.shape == (15, 3, 16, 16)
    assert torch.cat([train.labels, test.labels]).bincount().tolist() == [6, 6, 7]
    assert torch.equal(first["test"].images, again["test"].images)
    with pytest.raises(ValueError, match="1 of 20 files cannot be read: mend or remove") as caught:
        load_folder(tmp_path, image_size=16)
    assert str(caught.value).count("\n") == 1
    save_digits(tmp_path, first)
    read = load_images(tmp_path, "test")
    assert torch.equal(read.images, test.images) and read.about == test.about


def test_pictures_are_upright_opaque_and_not_distorted(tmp_path):
    """A red bar of 20x5 in 40x10, turned, is 5 wide and 20 high in 40: on 40 px columns 15 + 2.5 to
    15 + 7.5. 32,896 of 65,535 is 128 of 255. What is transparent gets the background.
    """
    write_pictures(tmp_path)
    turned = prepare(read_picture((tmp_path / "Birne 2" / "turned.jpg").read_bytes()), 40, "black")
    rows, columns = np.nonzero(turned[0] > 100)
    assert (rows.min(), rows.max()) == (10, 29) and 17 <= columns.min() <= columns.max() <= 22
    assert not turned[:, :, :14].any() and not turned[:, :, 26:].any()
    sixteen = prepare(
        read_picture((tmp_path / "Birne 2" / "sixteen.png").read_bytes()), 16, "black"
    )
    assert set(sixteen.flatten().tolist()) == {128}
    palette = read_picture((tmp_path / "Äpfel rot" / "größe.png").read_bytes())
    on_black, on_white = (prepare(palette, 24, background) for background in ("black", "white"))
    assert on_black[:, 0, 0].tolist() == [0, 0, 0] and on_black[:, 12, 12].tolist() == [200, 0, 0]
    inverted = [0, 0, 0], [55, 255, 255]
    assert (on_white[:, 0, 0].tolist(), on_white[:, 12, 12].tolist()) == inverted
    cmyk = prepare(read_picture((tmp_path / "Äpfel rot" / "cmyk.jpg").read_bytes()), 30, "black")
    assert cmyk.shape == (3, 30, 30) and cmyk[0, 15, 15] > 150 > 60 > cmyk[1, 15, 15]


def test_the_box_is_measured(tmp_path):
    """The digits of scikit-learn are scaled to MNIST's box, 20 of 28 px; so 30 of 42 px."""
    made = sources.make("scikit_learn", tmp_path, sources.Settings(image_size=42))
    assert 29 <= made["test"].about.box <= 31 and [*made["test"].about.differing()] == ["box"]


def test_numbers_in_names_count():
    names = ["b10", "b9", "A2", "ä", "a10", "Ω", "日1"]
    assert sorted(names, key=natural) == ["A2", "a10", "ä", "b9", "b10", "Ω", "日1"]


def make(root, files: list[str]) -> None:
    """Pictures, and folders where a name ends in /."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith("/"):
            (root / file).mkdir()
        else:
            blob("L", (9, 9), 255).save(root / file)


def test_folders_of_training_and_test(tmp_path):
    make(tmp_path, ["train/a/1.png", "train/b/1.png", "test/b/1.png"])
    splits = load_folder(tmp_path, image_size=9)
    assert splits["train"].labels.tolist() == [0, 1] and splits["test"].labels.tolist() == [1]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (["train/A/1.png", "train/B/1.png", "val/A/2.png"], "got one of train/ and test/"),
        (["train/A/1.png", "train/B/1.png", "test/C/1.png"], "test: C: no such class in"),
        (["train/A/", "train/B/1.png", "test/B/1.png"], "train: no pictures of A"),
        (["A/1.png", "A/2.png", "B/1.png", "C/1.png", "C/2.png"], "the only picture of B"),
        (["A/1.png"], "got the sub-folders A, wanted"),
        ([], r"data\.folder: there is no folder"),
    ],
)
def test_a_folder_that_would_be_read_otherwise_than_meant_is_a_line(tmp_path, files, line):
    make(tmp_path / "own", files)
    with pytest.raises(ValueError, match=line):
        load_folder(tmp_path / "own", image_size=8)
