"""Separation accuracy, on pictures drawn by hand."""

import pytest
import torch

from capsnet.learning.evaluation import Evaluator
from capsnet.metrics import box_overlap, mean_interval
from capsnet.studies.separation.measure import COLUMNS, means, separation_accuracy, separation_table


def bars() -> torch.Tensor:
    """Two bars of four pixels that share one: rows 0 to 3 of column 1, columns 1 to 4 of row 2."""
    sources = torch.zeros(1, 2, 6, 6)
    sources[0, 0, 0:4, 1] = sources[0, 1, 2, 1:5] = 1
    return sources


def test_separation_accuracy_by_hand():
    """Three pixels are the first's alone, three the second's; equal brightness is wrong."""
    sources = bars()
    assert separation_accuracy(sources, sources).tolist() == [100]
    assert separation_accuracy(sources.flip(1), sources).tolist() == [0]
    assert separation_accuracy(torch.full_like(sources, 0.5), sources).tolist() == [0]
    half = sources.clone()
    half[0, 0], half[0, 1] = 1, 0.9 * half[0, 0]  # the first is always brighter
    assert separation_accuracy(half, sources).tolist() == [50]
    same = sources[:, :1].expand(-1, 2, -1, -1)
    assert separation_accuracy(same, same).isnan().all()  # no pixel of one digit alone


def test_box_overlap_by_hand():
    """Boxes of 4x1 and 1x4 share one pixel: a quarter of each."""
    assert box_overlap(bars()).tolist() == [0.25]
    apart, inside = torch.zeros(1, 2, 6, 6), torch.zeros(1, 2, 6, 6)
    apart[0, 0, 0, 0] = apart[0, 1, 5, 5] = 1
    inside[0, 0, 0:6, 0:6] = inside[0, 1, 1:4, 1:4] = 1
    assert box_overlap(torch.cat([apart, inside])).tolist() == [0, 1]


def test_mean_interval_leaves_out_nan():
    """1, 2, 3: mean 2, standard error 1 / sqrt(3), half width 1.96 / 1.7321 = 1.1316."""
    mean, low, high, count = mean_interval(torch.tensor([1.0, float("nan"), 2.0, 3.0]))
    assert (mean, count) == (2, 3) and (low, high) == pytest.approx((0.8684, 3.1316), abs=1e-4)


def test_the_mean_of_a_class():
    sources, labels = torch.zeros(2, 2, 1, 1), torch.tensor([[3, 5], [7, 3]])
    sources[:, :, 0, 0] = torch.tensor([[1.0, 0.2], [0.6, 0.0]])
    assert means(sources, labels).flatten().tolist() == pytest.approx([0.5, 0.2, 0.6, 0.5])


@pytest.mark.parametrize(("num_digits", "decoder_sizes"), [(1, [8]), (2, [8]), (2, None)])
def test_a_network_is_compared_with_trivial_answers(
    num_digits, decoder_sizes, make_evaluator, monkeypatch
):
    evaluator = make_evaluator(num_digits, decoder_sizes=decoder_sizes, max_shift=2)
    predictions = evaluator.evaluate(20, num_kept=20)
    monkeypatch.setattr(Evaluator, "predict", None)  # the kept predictions suffice
    table = separation_table(evaluator, predictions, 20)
    assert list(table.columns) == COLUMNS and (table["examples"] > 0).all()
    squared = table[table["measure"] == "squared_error"].set_index("name")["value"]
    assert ("network" in squared) == (decoder_sizes is not None)
    assert ("half of the image" in squared) == (num_digits == 2)
    assert squared["mean of the class"] < squared["nothing"]
    pixels = "separation_accuracy" in set(table["measure"])
    assert pixels == bool(decoder_sizes and num_digits == 2)
    if decoder_sizes:
        expected = predictions.reconstruction_error.mean().item()
        assert squared["network"] == pytest.approx(expected, rel=1e-5)
