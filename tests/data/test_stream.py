"""MultiMNIST at full length: 60M training and 10M test pairs, each a function of its place."""

import resource

import pytest
import torch
from scipy.stats import chisquare

from capsnet.data.batches import epoch_order, evaluation_batches, seeded_generator, training_batches
from capsnet.data.mnist import Digits
from capsnet.data.multimnist import draw_partners, sort_classes

TRAINING, TEST, BATCH = 60_000_000, 10_000_000, 128
TASK = {"num_digits": 2, "image_size": 36, "max_shift": 4}


def digits_of(count: int, brightness: int) -> Digits:
    """As many as MNIST has of a split, each a dot of this brightness in its middle."""
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    images[:, 13, 13] = brightness
    return Digits(images, torch.arange(count) % 10)


@pytest.fixture(scope="module")
def splits():
    return digits_of(60_000, 1), digits_of(10_000, 2)


def test_the_first_and_the_last_batch_are_as_near(splits):
    """Whatever was drawn before: alone, or after another."""
    last = TRAINING // BATCH - 1
    one, other = (
        list(training_batches(splits[0], steps, seed=1, batch_size=BATCH, **TASK))
        for steps in ([last], [0, last])
    )
    for first, second in zip(one[-1], other[-1], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(one[0].labels, other[0].labels)


def test_the_last_of_ten_million_test_pairs(splits):
    """A block of 1,000 is drawn alone, without those before it."""
    blocks = evaluation_batches(
        splits[1], seed=1, num_examples=2000, batch_size=1000, **TASK
    )  # drawn lazily, block by block
    first, second = (batch.labels for batch in blocks)
    assert first.shape == second.shape == (1000, 2) and not torch.equal(first, second)
    order = epoch_order(60_000, TRAINING - 5, 5, seed=1)
    assert order.shape == (5,) and order.max() < 60_000


def test_no_pair_of_one_class_and_no_test_digit_in_training(splits):
    """Training dots have brightness 1, test dots 2: no canvas of one holds a dot of the other."""
    for split, brightness in zip(splits, (1, 2), strict=True):
        steps = [0, 1000, TRAINING // BATCH - 1]
        for batch in training_batches(split, steps, seed=3, batch_size=BATCH, **TASK):
            assert (batch.labels[:, 0] != batch.labels[:, 1]).all()
            dots = (255 * batch.sources).round().flatten(2).max(dim=2).values
            assert (dots == brightness).all()


def test_partners_and_shifts_are_uniform(splits):
    """Of 1M pairs with a base of class 0: each of the 54,000 others 18.5 times on average; each of
    the 9 x 9 shifts of the last batches as often. Neither is surer than one in a thousand."""
    classes = sort_classes(splits[0].labels)
    base = torch.zeros(1_000_000, dtype=torch.int64)
    partners = draw_partners(classes, base, seeded_generator("uniform"))
    counts = partners.bincount(minlength=60_000)
    assert counts[splits[0].labels == 0].sum() == 0
    assert chisquare(counts[splits[0].labels != 0].numpy()).pvalue > 0.001
    steps = range(TRAINING // BATCH - 100, TRAINING // BATCH)
    places = torch.cat(
        [
            batch.sources.flatten(0, 1).flatten(1).argmax(dim=1)
            for batch in training_batches(splits[0], steps, seed=1, batch_size=BATCH, **TASK)
        ]
    )
    counts = places.bincount(minlength=36 * 36)
    assert chisquare(counts[counts > 0].numpy()).pvalue > 0.001 and (counts > 0).sum() == 81


def test_memory_is_flat(splits):
    """Over a million pairs, after the first 10,000."""
    steps = range(TRAINING // 1000 - 1000, TRAINING // 1000)
    for number, _ in enumerate(training_batches(splits[0], steps, seed=1, batch_size=1000, **TASK)):
        if number == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000, f"{grown} KiB more"
