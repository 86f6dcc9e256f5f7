"""IDX archives, damaged ones, and the split into training and validation digits."""

import gzip

import numpy as np
import pytest
import torch

from capsnet.data.archives import read_idx, write_idx
from capsnet.data.batches import seeded_generator
from capsnet.data.mnist import Digits, load_digits, split_validation, stratified_subset


def write_split(folder, images, labels) -> bytes:
    write_idx(folder / "t10k-images-idx3-ubyte.gz", images)
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", labels)
    return (folder / "t10k-images-idx3-ubyte.gz").read_bytes()


def test_digits_are_written_and_read_and_the_bytes_are_the_same_each_time(tmp_path):
    """Magic 00 00 08 03, the sizes 3, 28 and 28 in big-endian, then the pixels."""
    images, labels = np.arange(3 * 784).reshape(3, 28, 28) % 256, np.array([3, 1, 4])
    first, second = (write_split(tmp_path, images, labels) for _ in range(2))
    header = bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 28, 0, 0, 0, 28])
    assert first == second and gzip.decompress(first) == header + images.astype(np.uint8).tobytes()
    digits = load_digits(tmp_path, "test")
    assert digits.images.dtype == torch.uint8 and digits.labels.dtype == torch.int64
    assert (digits.images.numpy() == images).all() and digits.labels.tolist() == [3, 1, 4]


INSIDE = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)])
WHOLE = gzip.compress(INSIDE, mtime=0)
DAMAGED = {
    "empty": b"",
    "cut": WHOLE[:-9],
    "text": b"404 not found",
    "bit of the data": WHOLE[:14] + bytes([WHOLE[14] ^ 1]) + WHOLE[15:],
    "bit of the checksum": WHOLE[:-8] + bytes([WHOLE[-8] ^ 1]) + WHOLE[-7:],
    "other type": gzip.compress(b"\0\0\x0d" + INSIDE[3:]),
    "more dimensions": gzip.compress(INSIDE[:3] + b"\xff" + INSIDE[4:]),
    "other size": gzip.compress(INSIDE[:7] + b"\3" + INSIDE[8:]),
    "half a header": gzip.compress(INSIDE[:6]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_archive_is_named_in_one_line(tmp_path, name):
    (path := tmp_path / "digits.gz").write_bytes(WHOLE)
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    path.write_bytes(DAMAGED[name])
    with pytest.raises(ValueError, match=r"digits\.gz") as error:
        read_idx(path)
    assert "\n" not in str(error.value)


def test_missing_archives_and_images_without_their_labels_are_errors(tmp_path):
    with pytest.raises(ValueError, match="missing: run `dvc repro download`"):
        load_digits(tmp_path, "train")
    write_split(tmp_path, np.zeros((2, 28, 28)), np.zeros(3))
    with pytest.raises(ValueError, match="2 test images but 3 labels"):
        load_digits(tmp_path, "test")
    write_split(tmp_path, np.zeros((2, 28, 28)), np.array([1, 10]))
    with pytest.raises(ValueError, match="label 10"):
        load_digits(tmp_path, "test")


LABELS = torch.tensor([3] * 8 + [5] * 20 + [9] * 12)
DIGITS = Digits(torch.arange(40, dtype=torch.uint8)[:, None, None].expand(40, 28, 28), LABELS)


def test_validation_digits_are_the_same_share_of_each_class():
    """A quarter of 8 threes, 20 fives and 12 nines: 2, 5 and 3. Every digit is in one part with its
    own label. The seed decides. Training digits keep their order, validation digits do not.
    """
    splits = [split_validation(DIGITS, 0.25, seeded_generator(seed)) for seed in (1, 1, 2)]
    training, validation = splits[0]
    assert validation.labels.bincount(minlength=10)[[3, 5, 9]].tolist() == [2, 5, 3]
    first, second = (part.images[:, 0, 0].tolist() for part in (training, validation))
    assert sorted(first + second) == list(range(40))
    assert first == sorted(first) and second != sorted(second)
    assert torch.equal(LABELS[second], validation.labels)
    assert torch.equal(splits[1][1].images, validation.images)
    assert not torch.equal(splits[2][1].images, validation.images)
    training, validation = split_validation(DIGITS, 0.0, seeded_generator(1))
    assert len(validation) == 0 and torch.equal(training.images, DIGITS.images)


def test_subsets_are_stratified_nested_and_seeded():
    """A quarter of 8 threes, 20 fives and 12 nines: 2, 5 and 3. A smaller subset is part of it, and
    the smallest has a digit of each class. A digit keeps its label and its place in the order.
    """
    subsets = [stratified_subset(DIGITS, size, seeded_generator(1)) for size in (3, 10, 40)]
    kept = [subset.images[:, 0, 0].tolist() for subset in subsets]
    assert set(kept[0]) < set(kept[1]) and kept[1] == sorted(kept[1]) and kept[2] == [*range(40)]
    assert subsets[0].labels.tolist() == [3, 5, 9]
    assert subsets[1].labels.bincount()[[3, 5, 9]].tolist() == [2, 5, 3]
    assert torch.equal(LABELS[kept[1]], subsets[1].labels)
    other = stratified_subset(DIGITS, 10, seeded_generator(2))
    assert not torch.equal(other.images, subsets[1].images)
    with pytest.raises(ValueError, match="training_digits: got 41, wanted at most 40"):
        stratified_subset(DIGITS, 41, seeded_generator(1))
