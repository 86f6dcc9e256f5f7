"""affNIST's MATLAB files, written here in the published format, and errors for wrong files."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from capsnet.data.affnist import load_affnist


def write_batch(path, number: int = 0, **changes) -> np.ndarray:
    """Write three random images and the labels number, 1, 2; return the images."""
    images = np.random.default_rng(number).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    labels = np.array([[number, 1, 2]], np.uint8)
    fields = {"image": images.reshape(3, 1600).T, "label_int": labels, "other": np.eye(10)}
    savemat(path, {"affNISTdata": fields | changes}, do_compression=True)
    return images


def test_batches_are_read_by_number_and_columns_row_by_row(tmp_path, monkeypatch):
    """From a path relative to the repository, as the experiment's copy has no such file."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path.parent))
    images = {number: write_batch(tmp_path / f"{number}.mat", number % 10) for number in (10, 2, 1)}
    digits = load_affnist(Path(tmp_path.name))
    assert digits.labels.tolist() == [1, 1, 2, 2, 1, 2, 0, 1, 2]
    assert (digits.images.numpy() == np.concatenate([images[n] for n in (1, 2, 10)])).all()
    assert str(digits.images.dtype) == "torch.uint8" and str(digits.labels.dtype) == "torch.int64"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image", np.zeros((784, 3), np.uint8), r"uint8 \[784, 3\] and \[1, 3\], but wanted"),
        ("image", np.zeros((1600, 3)), r"float64 \[1600, 3\]"),
        ("label_int", np.zeros((1, 2), np.uint8), r"and \[1, 2\], but wanted"),
        ("label_int", np.full((1, 3), 10, np.uint8), "label 10, but digits are 0 to 9"),
    ],
)
def test_a_wrong_field_is_an_error(field, value, message, tmp_path):
    write_batch(tmp_path / "1.mat", **{field: value})
    with pytest.raises(ValueError, match=rf"/1\.mat: .*{message}"):
        load_affnist(tmp_path)


@pytest.mark.parametrize("kind", ["other", "half", "version 7.3"])
def test_another_file_is_an_error_of_one_line(kind, tmp_path):
    write_batch(path := tmp_path / "1.mat")
    if kind == "other":
        savemat(path, {"affNISTdata": np.zeros(3)})
    elif kind == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM" + bytes(600))
    with pytest.raises(ValueError, match=r"1\.mat") as caught:
        load_affnist(path)
    assert "\n" not in str(caught.value)
