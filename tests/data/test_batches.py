"""Batches and MultiMNIST: batch t is a function of (seed, t), pairs are as the paper makes them."""

import pytest
import torch

from capsnet.data.batches import (
    epoch_order,
    evaluation_batches,
    seeded_generator,
    training_batches,
)
from capsnet.data.mnist import Digits
from capsnet.data.multimnist import compose, draw_partners, shift, sort_classes

MULTIMNIST = dict(num_digits=2, image_size=36, max_shift=4)
MNIST = dict(num_digits=1, image_size=28, max_shift=2)


def make_digits(count: int = 60) -> Digits:
    """Digits with a bright frame, so that nothing is lost unseen, and the number of the digit
    inside.
    """
    images = torch.full((count, 28, 28), 200, dtype=torch.uint8)
    images[:, 1:-1, 1:-1] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    return Digits(images, torch.arange(count) % 10)


def batch_of(step: int, task: dict = MULTIMNIST, **changes):
    options = dict(seed=1, batch_size=8) | task | changes
    return next(training_batches(make_digits(), [step], **options))


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("task", [MNIST, MULTIMNIST])
def test_a_batch_depends_on_seed_and_step_alone(task):
    """Drawn again, in another order, on one thread or two, after other random numbers: the same
    bytes.
    """
    first = [batch_of(step, task) for step in range(4)]
    torch.rand(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    again = [batch_of(step, task) for step in (3, 0, 2, 1)]
    torch.set_num_threads(threads)
    assert all(equal(first[step], batch) for step, batch in zip((3, 0, 2, 1), again, strict=True))
    assert not equal(first[0], first[1])
    assert not equal(first[0], batch_of(0, task, seed=2))


def test_each_step_draws_its_own_shifts_and_partners():
    """With one and the same digit everywhere only the shifts can differ; with the same first digits
    (batches of the whole set) only the partners and the shifts.
    """
    alike = Digits(make_digits().images[:1].expand(60, -1, -1), torch.zeros(60, dtype=torch.int64))
    options = dict(seed=1, batch_size=8) | MNIST
    first, second = training_batches(alike, [0, 1], **options)
    assert not torch.equal(first.images, second.images)
    first, second = training_batches(make_digits(), [0, 1], seed=1, batch_size=60, **MULTIMNIST)
    partners = [dict(batch.labels.tolist()) for batch in (first, second)]
    assert partners[0] != partners[1]


def test_shapes_and_ranges():
    images, targets, sources, labels = batch_of(0)
    assert images.shape == (8, 1, 36, 36) and sources.shape == (8, 2, 36, 36)
    assert targets.shape == (8, 10) and labels.shape == (8, 2)
    assert images.min() >= 0 and images.max() <= 1
    assert targets.sum(dim=1).eq(2).all() and targets.gather(1, labels).eq(1).all()
    assert batch_of(0, MNIST).sources.shape == (8, 1, 28, 28)


def test_one_epoch_meets_every_digit_once():
    order = epoch_order(60, 0, 180, seed=1)
    for epoch in range(3):
        assert order[60 * epoch : 60 * (epoch + 1)].sort().values.tolist() == list(range(60))
    assert not torch.equal(order[:60], order[60:120])
    assert torch.equal(epoch_order(60, 55, 10, seed=1), order[55:65])


def test_the_two_digits_never_share_a_class():
    labels = make_digits().labels
    base = torch.arange(60).repeat(50)
    partners = draw_partners(sort_classes(labels), base, seeded_generator(0))
    assert (labels[partners] != labels[base]).all()


def test_partners_are_drawn_evenly_from_all_other_classes():
    """Classes of 1, 2 and 7 digits; partners of the class of 2: 8 digits, each with chance 1/8.
    80,000 draws: 10,000 each, standard deviation 94, so 500 is 5 of them."""
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2, 2, 2])[
        torch.randperm(10, generator=seeded_generator(3))
    ]
    base = (labels == 1).nonzero()[0].expand(80_000)
    counts = draw_partners(sort_classes(labels), base, seeded_generator(4)).bincount(minlength=10)
    assert counts[labels == 1].eq(0).all()
    assert (counts[labels != 1] - 10_000).abs().max() < 500


def test_one_class_alone_makes_no_pairs():
    classes = sort_classes(torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="two classes"):
        draw_partners(classes, torch.arange(5), seeded_generator(0))


def test_shift_moves_and_cuts_off():
    """One pixel at (0, 0) of a 2x2 image on a 4x4 canvas stands at (1, 1); shifted by (1, -1) at
    (2, 0).
    """
    image = torch.tensor([[[9, 0], [0, 0]]], dtype=torch.uint8)
    assert shift(image, torch.tensor([[0, 0]]), 4).nonzero().tolist() == [[0, 1, 1]]
    assert shift(image, torch.tensor([[1, -1]]), 4).nonzero().tolist() == [[0, 2, 0]]
    assert shift(image, torch.tensor([[-2, 0]]), 4).sum() == 0
    assert shift(image, torch.tensor([[0, 0]]), 2).tolist() == image.tolist()


def corner(sources: torch.Tensor) -> torch.Tensor:
    """Top left corner of the frame in each image [..., h, w]: [..., 2]."""
    ink = sources > 0
    rows = ink.any(dim=-1).float().argmax(dim=-1)
    columns = ink.any(dim=-2).float().argmax(dim=-1)
    return torch.stack([rows, columns], dim=-1)


def test_each_digit_of_each_image_has_its_own_shift_and_reaches_every_offset():
    """36 - 28 = 8: the corner is anywhere in 0..8, 81 places. One shift for a batch, or for both
    digits, is wrong.
    """
    corners = corner(batch_of(0, batch_size=2000).sources)
    assert corners.min() == 0 and corners.max() == 8
    assert len({tuple(place) for place in corners[:, 0].tolist()}) == 81
    assert (corners[:, 0] != corners[:, 1]).any(dim=1).float().mean() > 0.95


def test_mnist_shifts_by_two_pixels_at_most_in_training():
    """The frame's lower right corner is cut off by a shift down or right; count by what is left."""
    sources = batch_of(0, MNIST, batch_size=500).sources[:, 0] > 0
    heights = sources.any(dim=2).sum(dim=1)
    assert set(heights.tolist()) == {26, 27, 28}


def test_pixels_are_added_and_clipped():
    """Two frames of 200: 200 where one is, 255 where both are, never 400 - 256."""
    images = torch.full((2, 28, 28), 200, dtype=torch.uint8)
    canvases, sources, labels = compose(
        images, torch.tensor([0, 1]), torch.tensor([0]), max_shift=4, generator=seeded_generator(0)
    )
    assert canvases.shape == (1, 36, 36) and sources.shape == (1, 2, 36, 36)
    assert labels.tolist() == [[0, 1]]
    total = sources.int().sum(dim=1)
    assert set(canvases.unique().tolist()) == {0, 200, 255}
    assert torch.equal(canvases.int(), total.clamp(max=255))


def test_evaluation_is_the_same_whatever_the_batch_size():
    arguments = dict(seed=7, num_examples=2300, **MULTIMNIST)
    small = [*evaluation_batches(make_digits(), batch_size=7, **arguments)]
    large = [*evaluation_batches(make_digits(), batch_size=1000, **arguments)]
    joined = [
        [torch.cat(field) for field in zip(*batches, strict=True)] for batches in (small, large)
    ]
    assert equal(*joined) and len(joined[0][0]) == 2300


def test_fewer_test_examples_are_the_first_of_more():
    arguments = dict(seed=7, batch_size=1000, **MULTIMNIST)
    few = [*evaluation_batches(make_digits(), num_examples=1300, **arguments)]
    more = [*evaluation_batches(make_digits(), num_examples=2000, **arguments)]
    assert len(few[1]) == 300
    assert equal(few[0], more[0]) and equal(few[1], [field[:300] for field in more[1]])


def test_evaluation_has_every_digit_equally_often_and_unshifted_without_shift():
    batches = evaluation_batches(
        make_digits(),
        seed=0,
        num_examples=60,
        batch_size=25,
        num_digits=1,
        image_size=28,
        max_shift=0,
    )
    images = torch.cat([batch.images for batch in batches])
    assert torch.equal((images[:, 0] * 255).round().byte(), make_digits().images)


def test_the_first_test_pairs_are_pinned():
    """The test pairs are part of the protocol: the same on every machine, for ever."""
    batch = next(
        evaluation_batches(make_digits(), seed=1, num_examples=4, batch_size=4, **MULTIMNIST)
    )
    assert batch.labels.tolist() == [[0, 7], [1, 6], [2, 0], [3, 6]]
    corners = [1, 0, 4, 0, 0, 0, 7, 0, 8, 6, 6, 2, 1, 5, 0, 2]
    assert corner(batch.sources).flatten().tolist() == corners
