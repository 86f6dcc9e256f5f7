"""Which examples are drawn, and which classes are decoded."""

import torch

from capsnet.studies.reconstructions.measure import align, reconstructions, with_absent


def test_decoded_classes():
    """A prediction that is a label stands at the label's place; the absent class is no label."""
    assert align([3, 5], [3, 6]) == [3, 6] and align([3, 5], [2, 5]) == [2, 5]
    assert align([3, 5], [5, 7]) == [7, 5] and align([3, 5], [1, 2]) == [1, 2]
    assert with_absent([3, 9]) == [3, 0] and with_absent([0, 9]) == [0, 1]


def test_examples_can_be_regenerated(make_evaluator):
    evaluator = make_evaluator(2, image_size=36, max_shift=4)
    predictions, chosen = evaluator.evaluate(30), evaluator.regenerate([3, 28])
    assert list(chosen) == [3, 28] and evaluator.regenerate([]) == {}
    for number, batch in chosen.items():
        assert torch.equal(batch.labels[0], predictions.labels[number])
        lengths = evaluator.predict(batch.images).lengths[0]
        torch.testing.assert_close(lengths, predictions.lengths[number])


def test_reconstructions_are_those_of_the_true_digits(make_evaluator):
    """The reconstruction error, and the first columns of Figure 3: wrong digits come twice."""
    evaluator = make_evaluator(1, decoder_sizes=[16])
    evaluator.model.digit.weight.data *= 100  # each class gets a picture of its own
    [batch] = evaluator._replace(batch_size=20).batches(20)
    with torch.no_grad():
        capsules = evaluator.model(batch.images).capsules
        pictures = evaluator.model.decoder(capsules, batch.labels)
    predictions = evaluator.evaluate(20)
    expected = ((pictures - batch.sources) ** 2).sum(dim=(2, 3))
    torch.testing.assert_close(predictions.reconstruction_error, expected, atol=0, rtol=1e-4)
    first, second = [one for one in reconstructions(evaluator, predictions) if one.case == "wrong"][
        :2
    ]
    number = (~predictions.correct).nonzero()[0].item()
    assert first.decoded == first.labels and second.decoded == second.predictions
    found = torch.from_numpy(first.reconstructions)
    torch.testing.assert_close(found, pictures[number], atol=1e-5, rtol=1e-4)
