"""What reconstructions tell apart, on pictures drawn by hand."""

import pytest
import torch

from capsnet.data.mnist import Digits
from capsnet.learning.evaluation import Evaluator
from capsnet.metrics import box_overlap
from capsnet.nn.capsnet import CapsNet
from capsnet.studies.separation.measure import COLUMNS, means, separation_accuracy, separation_table


def bars() -> torch.Tensor:
    """Two bars of four pixels that share one: rows 0 to 3 of column 1, columns 1 to 4 of row 2."""
    sources = torch.zeros(1, 2, 6, 6)
    sources[0, 0, 0:4, 1] = sources[0, 1, 2, 1:5] = 1
    return sources


def test_the_brighter_reconstruction_is_the_answer_where_one_digit_alone_has_ink():
    """Three pixels are the first's alone, three the second's; the shared one does not count."""
    sources = bars()
    assert separation_accuracy(sources, sources).tolist() == [100]
    assert separation_accuracy(sources.flip(1), sources).tolist() == [0]
    assert separation_accuracy(torch.full_like(sources, 0.5), sources).tolist() == [0]  # no answer
    half = sources.clone()
    half[0, 1] = 0.9 * half[0, 0] + 0.05  # the second is drawn as a pale first
    assert separation_accuracy(half, sources).tolist() == [100]
    half[0, 0] = 1
    assert separation_accuracy(half, sources).tolist() == [50]


def test_without_a_pixel_of_its_own_there_is_no_share():
    same = bars()[:, :1].expand(-1, 2, -1, -1)
    assert separation_accuracy(same, same).isnan().all()


def test_boxes_by_hand():
    """Boxes of 4x1 and 1x4 share one pixel: a quarter of each."""
    assert box_overlap(bars()).tolist() == [0.25]
    apart = torch.zeros(1, 2, 6, 6)
    apart[0, 0, 0, 0] = apart[0, 1, 5, 5] = 1
    assert box_overlap(apart).tolist() == [0]
    inside = torch.zeros(1, 2, 6, 6)
    inside[0, 0, 0:6, 0:6] = inside[0, 1, 1:4, 1:4] = 1
    assert box_overlap(inside).tolist() == [1]


def test_the_mean_of_a_class():
    sources, labels = torch.zeros(2, 2, 1, 1), torch.tensor([[3, 5], [7, 3]])
    sources[:, :, 0, 0] = torch.tensor([[1.0, 0.2], [0.6, 0.0]])
    assert means(sources, labels).flatten().tolist() == pytest.approx([0.5, 0.2, 0.6, 0.5])


@pytest.mark.parametrize("num_digits", [1, 2])
@pytest.mark.parametrize("decoder_sizes", [[8], None])
def test_a_network_beside_trivial_answers(num_digits, decoder_sizes, monkeypatch):
    torch.manual_seed(0)
    model = CapsNet(image_size=28, conv_channels=8, primary_types=2, decoder_sizes=decoder_sizes)
    images = torch.zeros(20, 28, 28, dtype=torch.uint8)
    images[:, 6:22, 6:10] = images[::2, 6:22, 18:22] = 255
    digits = Digits(images, torch.arange(20) % 10)
    evaluator = Evaluator(model.eval(), digits, torch.float32, 1, 9, num_digits, 28, 2)
    predictions = evaluator.evaluate(20, num_kept=20)
    monkeypatch.setattr(Evaluator, "predict", None)  # what was predicted is shared
    table = separation_table(evaluator, predictions, 20)
    assert list(table.columns) == COLUMNS and (table["examples"] > 0).all()
    squared = table[table["measure"] == "squared_error"].set_index("name")["value"]
    assert ("network" in squared) == (decoder_sizes is not None)
    assert ("half of the image" in squared) == (num_digits == 2)
    assert squared["mean of the class"] < squared["nothing"]
    assert ("separation_accuracy" in set(table["measure"])) == bool(
        decoder_sizes and num_digits == 2
    )
    if decoder_sizes:
        expected = predictions.reconstruction_error.mean().item()
        assert squared["network"] == pytest.approx(expected, rel=1e-5)


def test_means_tell_apart_what_is_always_at_a_place_of_its_own():
    """A class for each column: its mean is brighter there, always; if all are alike, never."""
    model = CapsNet(image_size=36, conv_channels=8, primary_types=2, decoder_sizes=[16]).eval()
    columns = torch.zeros(30, 28, 28, dtype=torch.uint8)
    for number in range(30):
        columns[number, :, 2 * (number % 10)] = 255
    for images, expected in ((columns, 100.0), (torch.full_like(columns, 255), None)):
        digits = Digits(images, torch.arange(30) % 10)
        evaluator = Evaluator(model, digits, torch.float32, 0, 7, 2, 36, 0)
        table = separation_table(evaluator, evaluator.evaluate(12, num_kept=12), 12)
        [row] = table[table["measure"] == "class_means_accuracy"].to_dict("records")
        assert row["value"] == expected if expected else row["examples"] == 0
