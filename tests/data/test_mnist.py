"""IDX files: what is read is what was written, and a broken file is named."""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies

from capsnet.data.archives import read_idx, write_idx
from capsnet.data.batches import seeded_generator
from capsnet.data.mnist import Digits, load_digits, split_validation


def write_split(folder, images, labels):
    write_idx(folder / "t10k-images-idx3-ubyte.gz", images)
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", labels)


def test_idx_by_hand(tmp_path):
    """Magic 00 00 08 02, sizes 2 and 3 in big-endian, six bytes."""
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])))
    assert read_idx(path).tolist() == [[1, 2, 3], [4, 5, 255]]


def test_written_digits_come_back_and_the_bytes_are_the_same_each_time(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    write_split(tmp_path, images, np.array([3, 1, 4, 1, 5]))
    first = (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes()
    write_split(tmp_path, images, np.array([3, 1, 4, 1, 5]))
    assert (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes() == first
    digits = load_digits(tmp_path, "test")
    assert digits.images.dtype == torch.uint8 and digits.labels.dtype == torch.int64
    assert digits.labels.tolist() == [3, 1, 4, 1, 5] and len(digits) == 5
    assert (digits.images.numpy() == images).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [  # mtime, so that both processes of pytest collect the same names
        (b"not gzip", "not a whole gzip file"),
        (gzip.compress(b"\x01\x02\x03\x04", mtime=0), "starts with 01020304"),
        (
            gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, 7]), mtime=0),
            "1 bytes of data, but its header says 9",
        ),
        (gzip.compress(b"", mtime=0), "starts with"),
    ],
)
def test_a_broken_archive_is_named(tmp_path, content, message):
    path = tmp_path / "broken.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(path)
    assert "broken.gz" in str(error.value)


@given(data=strategies.data())
@settings(max_examples=300, deadline=2000)
def test_a_damaged_archive_is_named(data):
    """Bytes changed in the archive, or in the header inside a sound one; or cut."""
    inside = bytearray([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, *range(24)])
    whole = gzip.compress(bytes(inside), mtime=0)
    kind = data.draw(strategies.sampled_from(["archive", "header", "cut"]))
    damaged = inside if kind == "header" else bytearray(whole)
    if kind == "cut":
        damaged = damaged[: data.draw(strategies.integers(0, len(whole) - 1))]
    else:
        last = 15 if kind == "header" else len(whole) - 1
        for place in data.draw(strategies.lists(strategies.integers(0, last), min_size=1)):
            damaged[place] ^= data.draw(strategies.integers(1, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "digits.gz"
        path.write_bytes(gzip.compress(bytes(damaged)) if kind == "header" else damaged)
        try:
            found = read_idx(path)
        except ValueError as error:
            assert "digits.gz" in str(error) and "\n" not in str(error)
        else:  # the change was in the archive's own name or time, or is the same shape in disguise
            assert found.tobytes() == bytes(range(24))


def test_a_missing_archive_says_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match="missing: run `dvc repro download`"):
        load_digits(tmp_path, "train")


def test_images_and_labels_must_fit(tmp_path):
    write_split(tmp_path, np.zeros((2, 28, 28)), np.zeros(3))
    with pytest.raises(ValueError, match="2 test images but 3 labels"):
        load_digits(tmp_path, "test")
    write_split(tmp_path, np.zeros((2, 28, 28)), np.array([1, 10]))
    with pytest.raises(ValueError, match="label 10"):
        load_digits(tmp_path, "test")


def test_validation_is_a_drawn_share_of_each_class():
    """A quarter of 8 threes, 20 fives and 12 nines: 2, 5 and 3. Every digit is in one of the two,
    with its own label; the seed decides, and the validation digits are mixed."""
    labels = torch.tensor([3] * 8 + [5] * 20 + [9] * 12)
    numbers = torch.arange(40, dtype=torch.uint8)[:, None, None].expand(40, 28, 28)
    digits = Digits(numbers, labels)
    training, validation = split_validation(digits, 0.25, seeded_generator("validation", 1))
    assert validation.labels.bincount(minlength=10)[[3, 5, 9]].tolist() == [2, 5, 3]
    first, second = (part.images[:, 0, 0].tolist() for part in (training, validation))
    assert sorted(first + second) == list(range(40)) and first == sorted(first)
    assert second != sorted(second)
    assert torch.equal(labels[second], validation.labels)
    again, other = (
        split_validation(digits, 0.25, seeded_generator("validation", n)) for n in (1, 2)
    )
    assert torch.equal(again[1].images, validation.images)
    assert not torch.equal(other[1].images, validation.images)
    none = split_validation(digits, 0.0, seeded_generator("validation", 1))
    assert len(none[1]) == 0 and torch.equal(none[0].images, digits.images)
