"""affNIST's MATLAB files, written here in the published format, and what a wrong file says."""

import gzip
import os
import re

import numpy as np
import pytest
from scipy.io import savemat

from capsnet.data.affnist import load_affnist


def images_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 40, 40), dtype=np.uint8)


def write_batch(path, images: np.ndarray, labels: np.ndarray, **changes) -> None:
    """The fields of the published files that matter, and two that we do not read."""
    fields = {
        "image": images.reshape(len(images), 1600).T,
        "label_int": labels[None].astype(np.uint8),
        "label_one_of_n": np.eye(10)[:, labels],
        "human_readable_transform": np.zeros((6, len(images))),
    }
    fields |= changes
    kept = {name: field for name, field in fields.items() if field is not None}
    savemat(path, {"affNISTdata": kept}, do_compression=True)


def test_a_column_is_an_image_row_by_row(tmp_path):
    images, labels = images_of(5), np.array([7, 2, 1, 0, 9])
    write_batch(tmp_path / "1.mat", images, labels)
    digits = load_affnist(tmp_path / "1.mat")
    assert (digits.images.numpy() == images).all() and digits.labels.tolist() == [7, 2, 1, 0, 9]
    assert str(digits.images.dtype) == "torch.uint8" and str(digits.labels.dtype) == "torch.int64"


def test_batches_are_read_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        write_batch(tmp_path / f"{number}.mat", images_of(2, number), np.full(2, number % 10))
    digits = load_affnist(tmp_path)
    assert digits.labels.tolist() == [1, 1, 2, 2, 0, 0]
    assert (digits.images[2:4].numpy() == images_of(2, 2)).all()


WRONG = {  # what is changed -> what the error must say
    "28x28": ({"image": np.zeros((784, 3), np.uint8)}, r"image is uint8 \[784, 3\].*\[1600, n\]"),
    "floats": ({"image": np.zeros((1600, 3))}, r"image is float64 \[1600, 3\], but.*uint8"),
    "labels": ({"label_int": np.zeros((1, 2), np.uint8)}, r"label_int is \[1, 2\].*\[1, 3\]"),
    "label 10": ({"label_int": np.full((1, 3), 10, np.uint8)}, "label 10, but digits are 0 to 9"),
    "no labels": ({"label_int": None}, "has image, label_one_of_n.*but affNIST's has image and"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_what_is_wrong(name, tmp_path):
    changes, expected = WRONG[name]
    path = tmp_path / "1.mat"
    write_batch(path, images_of(3), np.array([1, 2, 3]), **changes)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + expected) as caught:
        load_affnist(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_affnist_file_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"none\.mat is missing"):
        load_affnist(tmp_path / "none.mat")
    with pytest.raises(ValueError, match=r"no \.mat file, but .* are 1\.mat to 32\.mat"):
        load_affnist(tmp_path)
    path = tmp_path / "other.mat"
    savemat(path, {"digits": np.zeros(3)})
    with pytest.raises(ValueError, match=r"other\.mat: holds digits, but .* hold affNISTdata"):
        load_affnist(path)
    savemat(path, {"affNISTdata": np.zeros(3)})
    with pytest.raises(ValueError, match="affNISTdata has no fields"):
        load_affnist(path)


@pytest.mark.parametrize("kind", ["empty", "text", "gzip", "noise", "half", "version 7.3"])
def test_what_matlab_could_not_read_says_so_in_one_line(kind, tmp_path):
    path = tmp_path / "1.mat"
    write_batch(path, images_of(50), np.arange(50) % 10)
    whole = path.read_bytes()
    header = b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM"
    path.write_bytes(
        {
            "empty": b"",
            "text": b"404 Not Found" * 20,
            "gzip": gzip.compress(whole),
            "noise": os.urandom(500),
            "half": whole[: len(whole) // 2],
            "version 7.3": header + bytes(600),
        }[kind]
    )
    with pytest.raises(ValueError, match=r"1\.mat is not a MATLAB file of version 5") as caught:
        load_affnist(path)
    assert "\n" not in str(caught.value)
