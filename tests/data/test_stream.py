"""MultiMNIST at full length: 60M training and 10M test pairs, each a function of its place."""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare

from capsnet.data.batches import evaluation_batches, seeded_generator, training_batches
from capsnet.data.mnist import Digits
from capsnet.data.multimnist import draw_partners, sort_classes

STATM = Path("/proc/self/statm")
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
    """At once, without those before it; elsewhere the same as among all."""
    draw = partial(evaluation_batches, splits[1], seed=1, batch_size=1000, **TASK)
    [last] = draw(num_examples=TEST, start=TEST - 1000)
    assert last.labels[:, 0].tolist() == [n % 10 for n in range(9000, 10_000)]
    [_, second] = draw(num_examples=2000)
    [again] = draw(num_examples=2000, start=1000)
    for one, other in zip(second, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(second.labels, last.labels)
    with pytest.raises(ValueError, match="start is 999, wanted a multiple of 1000"):
        next(draw(num_examples=2000, start=999))


def test_no_pair_of_one_class_and_no_test_digit_in_training(splits):
    """Training dots have brightness 1, test dots 2: no canvas of one holds a dot of the other."""
    steps = [0, 1000, TRAINING // BATCH - 1]
    training = training_batches(splits[0], steps, seed=3, batch_size=BATCH, **TASK)
    test = partial(evaluation_batches, splits[1], seed=3, batch_size=1000, **TASK)
    ends = [*test(num_examples=1000), *test(num_examples=TEST, start=TEST - 1000)]
    for brightness, batches in ((1, training), (2, ends)):
        for batch in batches:
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


@pytest.mark.skipif(not STATM.exists(), reason="this system does not tell what a process holds")
def test_memory_is_flat():
    """Over a million pairs, after the first 10,000. A batch holds 2 MB, so noise is a few.

    In a process of its own, since what other tests left in this one comes and goes by itself, and
    on one thread, since two wait for each other at so small a batch.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,)) as process:
        held = process.submit(held_over_a_million).result()
    assert max(held) - held[0] < 20 * 2**20, held


def held_over_a_million() -> list[int]:
    """Bytes held after about 10,000 pairs of the stream's last million, and every 90,000 later."""
    steps = range((TRAINING - 1_000_000) // BATCH, TRAINING // BATCH)
    batches = training_batches(digits_of(60_000, 1), steps, seed=1, batch_size=BATCH, **TASK)
    return [resident() for number, _ in enumerate(batches) if number % 700 == 80]


def resident() -> int:
    """Bytes of memory that this process holds now, as Linux counts them."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
