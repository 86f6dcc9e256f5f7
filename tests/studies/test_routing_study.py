"""Measures of the routing on couplings and digits with known numbers."""

import pytest
import torch

from capsnet.nn.routing import Trace
from capsnet.studies.routing.measure import (
    COLUMNS,
    MAX_ITERATIONS,
    UNITS,
    TracedSample,
    contributions,
    difference,
    measure,
    num_votes,
    spatial_map,
    trace_routing,
    vote_maps,
)


def test_a_position_belongs_to_the_digit_with_nearly_all_the_ink():
    """28 px and kernels of 9 px give 6x6 positions; a field's middle 9 px start at 4, 6, ... 14.
    The left bar (columns 4 to 7) is seen by columns 0 and 1, the right one (20 to 23) by 4 and 5.
    """
    sources = torch.zeros(1, 2, 28, 28)
    sources[0, 0, :, 4:8] = sources[0, 1, :, 20:24] = 1
    first, second = spatial_map(sources, 17, 2, 6)[0].view(2, 6, 6)
    columns = torch.arange(6).expand(6, 6)
    assert torch.equal(first, columns < 2) and torch.equal(second, columns > 3)
    both = torch.ones(1, 2, 28, 28)
    assert not any(spatial_map(ink * both, 17, 2, 6).any() for ink in (0, 1))


def traced(couplings: list) -> TracedSample:
    """Two lower capsules, three upper ones; capsule 0 is the first digit's, 1 the second's. Each
    votes for upper capsule j along axis j with length 2; the capsules point there, 0.5 long.
    """
    votes, capsules = 2 * torch.eye(3).expand(2, 3, 3), 0.5 * torch.eye(3)[None]
    trace = Trace(votes, torch.tensor(couplings)[None], capsules)
    return TracedSample(trace, torch.tensor([1.0, 3.0]), torch.eye(2).bool(), 2, [0, 1], 1, (9, 2))


def test_measures_of_one_image():
    """A product of vote and capsule is 2 x 0.5 = 1, its cosine 1. Entropies: 1 bit for (1/2, 1/2,
    0), 0 for (0, 1, 0), weighted 1 to 3. Own: half of the first, all of the second: 75 %; the
    other's: half and nothing: 25 %; nothing is left for the third digit. Capsule 0 is the first's
    vote alone (coupled by 1/2), capsule 1 a third the first's (1/2), two thirds the second's (1):
    by contribution 1/2 and 5/6; one vote and two votes carry 80 %.
    """
    values = dict(zip(UNITS, measure(traced([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))[0], strict=True))
    expected = {"logit_change": 1, "entropy": 0.25, "agreement": 1, "own_coupling": 75}
    expected |= {"other_coupling": 25, "absent_coupling": 0, "contributed_coupling": 200 / 3}
    expected |= {"largest_coupling": 75, "votes": 1.5, "positive_share": 100, "length": 0.5}
    assert {name: values[name].item() for name in expected} == pytest.approx(expected)
    assert values["coupling_change"].isnan() and values["logit_change_change"].isnan()


def test_contributions_sum_to_one_and_a_vote_against_is_negative():
    """Votes (3, 4), (0, 2) and (-1, 0), coupled alike by 1/2: s = (1, 3), |s|^2 = 10. Along s they
    add (3 + 12) / 20 = 0.75, 6 / 20 = 0.3 and -1 / 20 = -0.05; two of them make 80 %.
    """
    votes = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]], [[-1.0, 0.0]]])
    parts = contributions(votes, torch.full((1, 3, 1), 0.5))
    torch.testing.assert_close(parts[0, :, 0], torch.tensor([0.75, 0.3, -0.05]))
    assert num_votes(parts).tolist() == [[2.0]]


def test_differences_are_from_the_previous_iteration():
    found = difference(torch.tensor([1.0, 3.0, 2.0]).view(3, 1, 1).expand(3, 4, 5))
    assert found[0].isnan() and found[1:].tolist() == [2.0, 1.0]


@pytest.mark.parametrize(("num_digits", "iterations"), [(1, 3), (2, 1)])
def test_trace_of_a_network(num_digits, iterations, make_evaluator):
    """The first couplings are uniform over 10 classes; the error after the trained iterations is
    the network's.
    """
    evaluator = make_evaluator(num_digits, num_iterations=iterations)
    predictions = evaluator.evaluate(20)
    table, maps = trace_routing(evaluator, predictions, 20)
    assert list(table.columns) == COLUMNS and len(table) == MAX_ITERATIONS * len(UNITS)
    values = table.set_index(["measure", "iteration"])["value"]
    assert values["entropy", 1] == pytest.approx(3.3219, abs=1e-3)  # log2 10
    assert table["examples"].max() == 20
    error = 100 * (1 - predictions.correct.float().mean().item())
    assert values["error", iterations] == pytest.approx(error)
    assert maps and maps[0].maps.shape == (2, 6, 6)


def test_votes_of_one_position_make_the_whole_capsule():
    """Two types at one position: their contributions to either capsule sum to 1."""
    one = traced([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])._replace(num_positions=1)
    found = vote_maps(one, torch.zeros(28, 28), torch.zeros(2, 28, 28))
    assert found.digits == (0, 1) and found.maps.flatten().tolist() == [1, 1]
