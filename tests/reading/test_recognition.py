"""Which digits a network reads, and whether it is sure of them."""

import numpy as np
import pytest
import torch

from capsnet.data.batches import evaluation_batches, seeded_generator, training_batches
from capsnet.data.mnist import Digits
from capsnet.learning.rejection import REJECTED_SHARE, rejection_score, rejection_threshold
from capsnet.losses import margin_loss, probabilities, weighted_losses
from capsnet.nn.baseline import BaselineCNN
from capsnet.nn.capsnet import CapsNet, Prediction
from capsnet.reading import recognition
from capsnet.reading.handwriting import fit
from capsnet.reading.recognition import Reader, read
from capsnet.studies.calibration.measure import scramble


def test_lengths_choose_the_digits():
    """At most as many as the network knows, the longest even when it is short."""
    lengths = torch.tensor([0.1, 0.7, 0.2, 0.9, 0.6, 0, 0, 0, 0, 0])
    assert recognition.choose_digits(lengths, 1) == (3,)
    assert recognition.choose_digits(lengths, 2) == (3, 1)
    assert recognition.choose_digits(lengths * torch.tensor([1, 0.5] * 5), 2) == (4,)
    assert recognition.choose_digits(lengths / 2, 2) == (3,)


def test_the_size_that_fits_the_reconstruction_best_is_taken():
    """A network that always draws the same box of 26 px prefers the largest of the sizes."""
    box = torch.zeros(36, 36)
    box[6:32, 10:28] = 1

    class Network(torch.nn.Module):
        def forward(self, images):
            lengths = torch.full((len(images), 10), 0.2)
            return Prediction(lengths, torch.zeros(len(images), 10, 4))

        def decoder(self, capsules, labels):
            return box.expand(len(capsules), labels.shape[1], 36, 36)

    ink = np.zeros((200, 200))
    ink[20:150, 40:130] = 1
    reading = read(Reader(Network(), 36, 2), ink)
    assert np.count_nonzero(reading.image.max(axis=1)) == 26


def test_baselines_answer_with_probabilities():
    """Of a network for one digit they sum to 1; there is nothing to draw."""
    torch.manual_seed(0)
    scores = torch.randn(1, 10)
    one = probabilities(scores, 1)
    assert one.sum().item() == pytest.approx(1)
    two = probabilities(scores, 2)
    assert ((two > 0.5) == (scores > 0)).all()


@pytest.mark.parametrize("num_digits", [1, 2])
def test_a_baseline_rejects_by_its_probability_alone(num_digits):
    torch.manual_seed(0)
    model = BaselineCNN(image_size=28, num_digits=num_digits).eval()
    reading = read(Reader(model, 28, num_digits, rejection_threshold=2.0), np.eye(28))
    assert reading.reconstructions is None
    assert reading.rejected == (reading.lengths.max() <= 0.5)


def test_evidence_is_likeness_times_share():
    """A picture drawn as it is, by the only capsule: 1. Two capsules of one length, one read: 1/2.
    Drawn inverted: -1. A picture and a drawing that have nothing to do with each other: 0."""
    image = torch.eye(8).expand(4, 1, 8, 8)
    stripes = torch.tensor([0.0, 1.0]).repeat(8, 4)
    drawn = torch.stack([image[0], image[0], 1 - image[0], stripes[None]])
    lengths = torch.zeros(4, 10)
    lengths[:, 3] = 0.8
    lengths[1, 5] = 0.8
    found = rejection_score(image, lengths, torch.full((4, 1), 3), drawn)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, -1.0, 0.0]), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def learned() -> tuple[Reader, Digits]:
    """A small network that has seen scikit-learn's first digits for seconds, and the others."""
    from sklearn.datasets import load_digits

    small = load_digits()
    fitted = np.stack([fit(image / 16, image_size=28, box_size=20) for image in small.images])
    images, labels = (
        torch.tensor(np.rint(255 * fitted).astype(np.uint8)),
        torch.tensor(small.target),
    )
    train, validation, test = (
        Digits(images[part], labels[part])
        for part in (slice(1000), slice(1000, 1400), slice(1600, None))
    )
    torch.manual_seed(0)
    sizes = {"conv_channels": 8, "primary_types": 4, "decoder_sizes": (32, 64)}
    model = CapsNet(image_size=28, **sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    shown = {"seed": 1, "num_digits": 1, "image_size": 28, "max_shift": 0}
    for batch in training_batches(train, range(100), batch_size=25, **shown):
        prediction = model(batch.images)
        losses = weighted_losses(
            prediction.lengths,
            batch.targets,
            model.decoder(prediction.capsules, batch.labels),
            batch.sources,
            classification=margin_loss,
            reconstruction_weight=0.005,
        )
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    batches = evaluation_batches(validation, num_examples=400, batch_size=100, **shown)
    limit = rejection_threshold(model, batches, torch.float32)
    return Reader(model, 28, 1, limit), test


def rejection_rate(reader: Reader, images: torch.Tensor) -> float:
    return np.mean([read(reader, image.numpy()).rejected for image in images])


def test_a_trained_network_rejects_what_is_no_digit(learned):
    """Correct test predictions are rejected about as often as validation predictions."""
    reader, test = learned
    images = test.images / 255
    readings = [read(reader, image.numpy()) for image in images]
    right = [one for one, label in zip(readings, test.labels, strict=True) if label in one.digits]
    assert len(right) > 0.85 * len(readings)
    assert np.mean([one.rejected for one in right]) < REJECTED_SHARE + 0.08
    generator = seeded_generator("no digits")
    assert rejection_rate(reader, torch.rand(50, 28, 28, generator=generator)) == 1
    tiles = scramble(images[:100, None], tile=4, generator=generator)
    assert rejection_rate(reader, tiles[:, 0]) > 0.9


def test_without_examples_or_decoder_there_is_no_limit(learned):
    assert rejection_threshold(learned[0].model, [], torch.float32) is None
    assert rejection_threshold(BaselineCNN(image_size=28, num_digits=1), [], torch.float32) is None
