"""The predicted digits of a picture, and whether they are rejected."""

import numpy as np
import pytest
import torch

from capsnet.data.batches import Batch, seeded_generator
from capsnet.data.mnist import About
from capsnet.data.sources import framing
from capsnet.learning.rejection import rejection_factors, rejection_threshold
from capsnet.losses import probabilities
from capsnet.nn.baseline import BaselineCNN
from capsnet.nn.capsnet import Prediction
from capsnet.reading.page import SEVERAL
from capsnet.reading.recognition import Reader, choose_digits, read, read_image


class Templates(torch.nn.Module):
    """A network whose lengths are the correlations with ten templates, which it also draws."""

    def __init__(self, templates: torch.Tensor):
        super().__init__()
        self.templates = templates

    def forward(self, images):
        rows = torch.cat([images.flatten(1), self.templates.flatten(1)])
        correlations = rows.corrcoef().nan_to_num()[: len(images), len(images) :].clamp(min=0)
        return Prediction(correlations, torch.zeros(len(images), 10, 4))

    def decoder(self, capsules, labels):
        return self.templates[labels]


@pytest.fixture
def templates() -> torch.Tensor:
    return torch.rand(10, 28, 28, generator=seeded_generator("templates")).round()


def test_lengths_choose_the_digits():
    """At most as many as the network knows, the longest even when it is short."""
    lengths = torch.tensor([0.1, 0.7, 0.2, 0.9, 0.6, 0, 0, 0, 0, 0])
    assert choose_digits(lengths, 1) == (3,)
    assert choose_digits(lengths, 2) == (3, 1)
    assert choose_digits(lengths / 2, 2) == (3,)


def test_the_size_with_the_best_reconstruction_is_chosen():
    """A network that always draws a box of 26 px prefers the largest of the sizes."""
    box = torch.zeros(10, 36, 36)
    box[:, 6:32, 10:28] = 1
    ink = np.zeros((200, 200))
    ink[20:150, 40:130] = 1
    reading = read(Reader(Templates(box), 36, 2), ink)
    assert np.count_nonzero(reading.image.max(axis=1)) == 26


@pytest.mark.parametrize(("digits", "width"), [(1, 2.5), (2, 1.6)])
@pytest.mark.parametrize("box", [14, 20, 28])
def test_the_box_is_that_of_the_training_images(templates, box, digits, width):
    """Strokes grow with it: a line 2 of 200 px thin becomes 2.5 px wide in MNIST's box of 20 px,
    for a network of pairs 1.6 px.
    """
    ink = np.zeros((240, 240))
    ink[20:220, 100:102] = ink[218:220, 100:200] = 1
    model = Templates(templates)
    if digits > 1:
        model.decoder = None  # no reconstruction chooses among boxes
    image = read(Reader(model, 28, digits, about=About(box=box)), ink).image
    rows = np.nonzero(image > 0.1)[0]
    wanted = box if digits == 1 else min(28, round(1.15 * box))
    assert abs(np.ptp(rows) + 1 - wanted) <= 1 and image.max() == 1
    assert image[rows.min() + box // 2].sum() == pytest.approx(width * box / 20, rel=0.2)


@pytest.mark.parametrize("times", [1, 8])
def test_characters_of_two_marks_lie_as_in_training(templates, times):
    """Two marks of different height in a box of 24 px, as characters of KMNIST and EMNIST are
    framed: the box is in the middle, the centre of mass is not. An image of the set stays, an
    enlarged one is the same up to its soft edges; a shift by a pixel gives over 0.02.
    """
    images = np.zeros((6, 28, 28), np.uint8)
    images[:, 2:26, 2:5] = 255
    for number, image in enumerate(images):
        image[2 + 3 * number : 8 + 3 * number, 20:26] = 255
    box, centre = framing(torch.from_numpy(images))
    assert (box, centre) == (24, "box")
    reader = Reader(Templates(templates), 28, 1, about=About(box=box, centre=centre))
    for image in images:
        reading = read(reader, np.kron(image / 255, np.ones((times, times))))
        assert reading.reason != SEVERAL
        assert np.abs(reading.image - image / 255).mean() < (0.015 if times > 1 else 1e-6)


@pytest.mark.parametrize("num_digits", [1, 2])
def test_a_baseline_rejects_by_its_probability_alone(num_digits):
    torch.manual_seed(0)
    model = BaselineCNN(image_size=28, num_digits=num_digits).eval()
    reading = read(Reader(model, 28, num_digits, rejection_threshold=2.0), np.eye(28))
    assert reading.reconstructions is None
    assert reading.rejected == (reading.lengths.max() <= 0.5)
    scores = torch.linspace(-2, 1, 10)[None]  # probabilities sum to 1, or each is of its own
    found = probabilities(scores, num_digits)
    assert found.sum().item() == pytest.approx(1) or ((found > 0.5) == (scores > 0)).all()
    assert rejection_threshold(model, [], torch.float32) is None


def test_a_rejection_gives_the_weaker_factor_as_its_reason(templates):
    """A picture that no template resembles; one that two templates draw in equal shares."""
    noise = torch.rand(28, 28, generator=seeded_generator("noise")).numpy()
    reader = Reader(Templates(templates), 28, 1, rejection_threshold=2)
    assert read_image(reader, noise).reason == "no capsule is longer than 0.5"
    between = (0.55 * templates[3] + 0.45 * templates[7]).numpy()
    reading = read_image(reader, between)
    assert reading.digits == (3,)
    assert reading.reason == f"7 ({reading.lengths[7]:.2f}) is a rival"
    blank = Templates(templates)
    blank.decoder = lambda capsules, labels: torch.zeros(1, 1, 28, 28)
    reading = read_image(Reader(blank, 28, 1), templates[3].numpy())
    assert reading.reason == "the reconstruction does not resemble the picture"
    assert read_image(Reader(blank, 28, 1, -1), templates[3].numpy()).reason is None


def test_rejection_score_is_correlation_times_share_of_squared_lengths():
    """An exact drawing by the only capsule: 1. Two capsules of one length, one predicted: 1/2.
    Drawn inverted: -1. An uncorrelated drawing: 0.
    """
    image = torch.eye(8).expand(4, 1, 8, 8)
    stripes = torch.tensor([0.0, 1.0]).repeat(8, 4)
    drawn = torch.stack([image[0], image[0], 1 - image[0], stripes[None]])
    lengths = torch.zeros(4, 10)
    lengths[:, 3] = 0.8
    lengths[1, 5] = 0.8
    likeness, share = rejection_factors(image, lengths, torch.full((4, 1), 3), drawn)
    found = likeness * share
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, -1.0, 0.0]), atol=1e-6, rtol=0)


def test_the_rejection_threshold_is_a_quantile_of_correct_predictions(templates):
    """Of 201 pictures, the templates under more and more noise, 1/100 of the correctly classified
    have a lower score. The wrong label of the last one leaves 200: 2. Noise alone is rejected.
    """
    model = Templates(templates)
    labels = torch.arange(201) % 10
    noise = torch.rand(201, 28, 28, generator=seeded_generator("noise"))
    images = torch.lerp(templates[labels], noise, torch.linspace(0, 0.5, 201)[:, None, None])
    labels[-1] += 1
    batch = Batch(images[:, None], None, None, labels[:, None])
    threshold = rejection_threshold(model, [batch], torch.float32)
    reader = Reader(model, 28, 1, threshold)
    readings = [read_image(reader, image.numpy()) for image in images[:-1]]
    assert [reading.digits for reading in readings] == [(n % 10,) for n in range(200)]
    assert sum(reading.rejected for reading in readings) == 2
    assert read_image(reader, noise[0].numpy()).rejected
    assert rejection_threshold(model, [], torch.float32) is None
