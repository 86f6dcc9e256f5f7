"""Batch t is a function of (seed, t), and MultiMNIST's pairs are as in the paper."""

import pytest
import torch
from scipy.stats import chisquare

from capsnet.data import batches
from capsnet.data.batches import seeded_generator, training_batches
from capsnet.data.mnist import About, Digits
from capsnet.data.multimnist import compose, draw_partners, shift, sort_classes
from capsnet.data.transforms import distort

MULTIMNIST = dict(num_digits=2, image_size=36, max_shift=4)
MNIST = dict(num_digits=1, image_size=28, max_shift=2)
LAST = 60_000_000 // 128 - 1  # batch of the paper's 60M training pairs


def make_digits(count: int = 60) -> Digits:
    """Digits with a bright frame, and the number of the digit inside."""
    images = torch.full((count, 28, 28), 200, dtype=torch.uint8)
    images[:, 1:-1, 1:-1] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    return Digits(images, torch.arange(count) % 10)


def batch_of(step: int, task: dict = MULTIMNIST, **changes):
    options = dict(seed=1, batch_size=8) | task | changes
    return next(training_batches(make_digits(), [step], **options))


def evaluation(num_examples: int, batch_size: int, seed: int = 7, **task):
    options = dict(seed=seed, num_examples=num_examples, batch_size=batch_size)
    found = [*batches.evaluation_batches(make_digits(), **options, **(task or MULTIMNIST))]
    return found, [torch.cat(field) for field in zip(*found, strict=True)]


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def corner(sources: torch.Tensor) -> torch.Tensor:
    """Top left corner of the frame in each image [..., h, w]: [..., 2]."""
    ink = (sources > 0).float()
    return torch.stack([ink.amax(dim=dim).argmax(dim=-1) for dim in (-1, -2)], dim=-1)


@pytest.mark.parametrize("task", [MNIST, MULTIMNIST])
def test_a_batch_depends_on_seed_and_step_alone(task):
    """The same bytes in any order, up to the last batch."""
    steps = (0, 1, 2, LAST)
    first = [batch_of(step, task) for step in steps]
    again = training_batches(make_digits(), steps[::-1], seed=1, batch_size=8, **task)
    assert all(equal(*pair) for pair in zip(first[::-1], again, strict=True))
    assert not equal(first[0], first[1]) and not equal(first[0], batch_of(0, task, seed=2))


def test_each_step_draws_its_own_shifts_and_partners():
    """Two batches of the whole set have the same first digits and nothing else in common."""
    task = dict(seed=1, batch_size=60, num_digits=2, max_shift=4)
    drawn = [*batches.training_draws(make_digits(), [0, 1], **task)]
    assert not torch.equal(drawn[0][..., 1:], drawn[1][..., 1:])
    first, second = (draws[draws[:, 0, 0].argsort()] for draws in drawn)
    assert torch.equal(first[:, 0, 0], second[:, 0, 0])
    assert not torch.equal(first[:, 1, 0], second[:, 1, 0])
    assert not torch.equal(first[..., 1:], second[..., 1:])


def test_one_epoch_has_every_digit_once():
    order = batches.epoch_order(60, 0, 120, seed=1)
    for epoch in order.view(2, 60):
        assert epoch.sort().values.tolist() == list(range(60))
    assert not torch.equal(order[:60], order[60:])
    assert torch.equal(batches.epoch_order(60, 55, 10, seed=1), order[55:65])


def test_partners_are_uniform_over_the_digits_of_all_other_classes():
    """Classes of 1, 2 and 7 digits, partners of the class of 2: 8 digits with the same chance. The
    test fails by chance once in a thousand seeds.
    """
    labels = torch.tensor([2, 1, 2, 2, 0, 2, 1, 2, 2, 2])
    base = (labels == 1).nonzero()[0].expand(80_000)
    counts = draw_partners(sort_classes(labels), base, seeded_generator(4)).bincount(minlength=10)
    assert counts[labels == 1].eq(0).all()
    assert chisquare(counts[labels != 1].numpy()).pvalue > 0.001


def test_the_two_digits_never_share_a_class():
    for _, targets, _, labels in (batch_of(LAST, batch_size=3000), evaluation(2000, 1000)[1]):
        assert (labels[:, 0] != labels[:, 1]).all()
        assert targets.sum(dim=1).eq(2).all() and targets.gather(1, labels).eq(1).all()
    with pytest.raises(ValueError, match="one class"):
        draw_partners(sort_classes(torch.zeros(5).long()), torch.arange(5), seeded_generator(0))


def test_shift_moves_and_cuts_off():
    """The pixel (0, 0) of 2x2 is at (1, 1) of a 4x4 canvas, shifted by (1, -1) at (2, 0)."""
    image = torch.tensor([[9, 0], [0, 0]])
    for move, wanted in (([0, 0], [[1, 1]]), ([1, -1], [[2, 0]]), ([-2, 0], [])):
        assert shift(image, torch.tensor(move), 4).nonzero().tolist() == wanted
    assert shift(image, torch.tensor([0, 0]), 2).tolist() == image.tolist()


def test_each_digit_of_each_image_has_its_own_uniform_shift():
    """36 - 28 = 8: the corner is in 0..8, 81 places with the same chance. One shift for a batch, or
    for both digits, is wrong.
    """
    corners = corner(batch_of(0, batch_size=2000).sources)
    counts = (9 * corners[..., 0] + corners[..., 1]).flatten().bincount()
    assert len(counts) == 81 and chisquare(counts.numpy()).pvalue > 0.001
    assert (corners[:, 0] != corners[:, 1]).any(dim=1).float().mean() > 0.95


def test_pixels_are_added_and_clipped():
    """Two frames of 200: 200 where one is, 255 where both are, never 400 - 256."""
    images, labels = torch.full((2, 28, 28), 200, dtype=torch.uint8), torch.tensor([0, 1])
    options = dict(max_shift=4, generator=seeded_generator(0))
    canvases, sources, labels = compose(images, labels, torch.tensor([0]), **options)
    assert canvases.shape == (1, 36, 36) and sources.shape == (1, 2, 36, 36)
    assert labels.tolist() == [[0, 1]] and set(canvases.unique().tolist()) == {0, 200, 255}
    assert torch.equal(canvases.int(), sources.int().sum(dim=1).clamp(max=255))


def test_evaluation_examples_depend_on_neither_batch_size_nor_number():
    """Without shift every digit comes equally often and stays where it is."""
    (small, few), (large, more) = evaluation(1300, 7), evaluation(2000, 1000)
    assert len(small[0]) == 7 and len(large[0]) == 1000
    assert equal(few, [field[:1300] for field in more])
    assert len(few[0]) == 1300 and not torch.equal(more[3][:1000], more[3][1000:])
    _, (images, *_) = evaluation(60, 25, num_digits=1, image_size=28, max_shift=0)
    assert torch.equal((images[:, 0] * 255).round().byte(), make_digits().images)


def test_the_first_test_pairs_are_pinned():
    """The test pairs are part of the protocol and the same on every machine."""
    [batch], _ = evaluation(4, 4, seed=1)
    assert batch.labels.tolist() == [[0, 7], [1, 6], [2, 0], [3, 6]]
    corners = [1, 0, 4, 0, 0, 0, 7, 0, 8, 6, 6, 2, 1, 5, 0, 2]
    assert corner(batch.sources).flatten().tolist() == corners


def test_augmented_digits_are_those_of_the_plain_batch_distorted():
    """Positions and shifts are drawn before the distortions, so they stay the same."""
    digits, task = make_digits(), dict(seed=1, batch_size=8, num_digits=2, max_shift=2)
    [plain] = batches.training_draws(digits, [3], **task)
    [drawn] = batches.training_draws(digits, [3], augment=True, **task)
    assert torch.equal(drawn[..., :3], plain)
    batch = batches.compose_batch(digits, drawn, image_size=32)
    images = distort(digits.images[drawn[:, 1, 0]], drawn[:, 1, 3:])
    expected = shift(images, drawn[:, 1, 1:3], 32) / 255
    assert torch.equal(batch.sources[:, 1], expected)


def test_balanced_draws_have_every_class_equally_often_and_pairs_of_two():
    """Classes of 57, 2 and 1 digits. The test fails by chance once in a thousand seeds."""
    digits = Digits(make_digits().images, torch.tensor([0] * 57 + [1] * 2 + [2]))
    task = dict(seed=1, batch_size=3000, num_digits=2, max_shift=0, balance=True)
    [draws] = batches.training_draws(digits, [0], **task)
    labels = digits.labels[draws[..., 0]]
    assert (labels[:, 0] != labels[:, 1]).all()
    assert chisquare(labels[:, 0].bincount().numpy()).pvalue > 0.001


def test_objects_of_colour_combine_by_their_maximum_if_told():
    """200 and 200: 200, not 255; each channel by itself."""
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[0, :2], images[1, 1:] = 200, 200
    digits = Digits(images, torch.tensor([0, 1]), About(("a", "b"), combine="max"))
    draws = torch.tensor([[[0, 0, 0], [1, 0, 0]]])
    batch = batches.compose_batch(digits, draws, image_size=4)
    assert batch.sources.shape == (1, 2, 3, 4, 4) and batch.targets.tolist() == [[1, 1]]
    assert (batch.images[0] * 255).round().unique().tolist() == [200]
