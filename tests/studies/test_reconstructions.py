"""Which examples are drawn, and that a reconstruction is that of the example."""

import torch

from capsnet.data.mnist import Digits
from capsnet.learning.evaluation import Evaluator
from capsnet.nn.capsnet import CapsNet
from capsnet.studies.reconstructions.measure import in_order_of, made_again


def evaluator(image_size: int, num_digits: int) -> Evaluator:
    torch.manual_seed(0)
    model = CapsNet(image_size=image_size, conv_channels=8, primary_types=2, decoder_sizes=[16])
    images = torch.randint(0, 256, (30, 28, 28), dtype=torch.uint8)
    digits = Digits(images, torch.arange(30) % 10)
    return Evaluator(model.eval(), digits, torch.float32, 0, 7, num_digits, image_size, 4)


def test_predictions_keep_the_colour_of_the_label_they_match():
    assert in_order_of((3, 5), [3, 6]) == (3, 6)
    assert in_order_of((3, 5), [2, 5]) == (2, 5)
    assert in_order_of((3, 5), [5, 7]) == (7, 5)
    assert in_order_of((3, 5), [1, 2]) == (1, 2)


def test_judged_examples_can_be_made_again():
    pairs = evaluator(36, 2)
    predictions = pairs.evaluate(50)
    chosen = made_again(pairs, [3, 48])
    assert list(chosen) == [3, 48] and made_again(pairs, []) == {}
    for number, batch in chosen.items():
        assert torch.equal(batch.labels[0], predictions.labels[number])
        torch.testing.assert_close(
            pairs.predict(batch.images).lengths[0], predictions.lengths[number]
        )


def test_reconstruction_error_is_that_of_the_true_digits():
    single = evaluator(28, 1)._replace(max_shift=0)
    [batch] = single.batches(5)
    with torch.no_grad():
        capsules = single.model(batch.images).capsules
        pictures = single.model.decoder(capsules, batch.labels)
    expected = ((pictures - batch.sources) ** 2).sum(dim=(2, 3))
    torch.testing.assert_close(single.evaluate(5).reconstruction_error, expected)
