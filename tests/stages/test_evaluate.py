"""Tables and figures of the evaluation: what is counted, and which capsules are drawn."""

from argparse import Namespace
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.io import savemat

from capsnet.data.batches import evaluation_batches
from capsnet.data.mnist import Digits
from capsnet.evaluation import Outcome, judge
from capsnet.nn.capsnet import CapsNet
from capsnet.params import Run, load_params
from capsnet.studies import reconstructions as gallery
from stages import evaluate, perturb


def outcome(predictions: list[tuple], labels: list[tuple], overlap: list[float]) -> Outcome:
    lengths = torch.zeros(len(labels), 10)
    lengths.scatter_(1, torch.tensor(predictions), 1.0)
    return Outcome(
        lengths, torch.tensor(labels), torch.zeros(len(labels), 2), torch.tensor(overlap)
    )


def test_errors_by_digit_pair_and_overlap():
    """(3, 5) right; (5, 3) taken for (3, 6): digit 5 missed once of twice, its pair wrong once of
    twice, one error in each of two bins of overlap.
    """
    judged = outcome([(3, 5), (3, 6)], [(3, 5), (5, 3)], [0.1, 1.0])
    table = evaluate.error_table(judged).set_index(["group", "name"])["error"]
    assert table["digit", "3"] == 0 and table["digit", "5"] == 50
    assert table["pair", "3 and 5"] == 50
    assert table["overlap", "0 to 20 %"] == 0 and table["overlap", "80 to 100 %"] == 100
    assert len(table) == 5  # groups without an example have no error
    assert evaluate.headline(judged)["error"] == 50


def test_one_digit_has_errors_by_digit_only():
    judged = Outcome(torch.eye(10), torch.arange(10)[:, None], torch.zeros(10, 1), torch.zeros(10))
    table = evaluate.error_table(judged)
    assert set(table["group"]) == {"digit"} and table["error"].eq(0).all()


def test_confusion_table_is_tidy():
    table = evaluate.confusion_table(torch.arange(9).view(3, 3))
    row = table[(table["label"] == 1) & (table["prediction"] == 2)]
    assert row["count"].item() == 5 and len(table) == 9


def test_predictions_keep_the_colour_of_the_label_they_match():
    assert gallery._in_order_of((3, 5), [3, 6]) == (3, 6)
    assert gallery._in_order_of((3, 5), [2, 5]) == (2, 5)
    assert gallery._in_order_of((3, 5), [5, 7]) == (7, 5)
    assert gallery._in_order_of((3, 5), [1, 2]) == (1, 2)


def small() -> tuple[CapsNet, Digits]:
    torch.manual_seed(0)
    model = CapsNet(
        image_size=28, conv_channels=8, kernel_size=7, primary_types=2, decoder_sizes=[16]
    )
    images = torch.randint(0, 256, (30, 28, 28), dtype=torch.uint8)
    return model.eval(), Digits(images, torch.arange(30) % 10)


def test_judged_examples_can_be_made_again():
    model, digits = small()
    model = CapsNet(image_size=36, conv_channels=8, primary_types=2, decoder_sizes=[16]).eval()

    def batches(num_examples):
        return evaluation_batches(
            digits,
            seed=0,
            num_examples=num_examples,
            batch_size=7,
            num_digits=2,
            image_size=36,
            max_shift=4,
        )

    judged = judge(model, batches(num_examples=50), torch.float32)
    chosen = gallery.examples(batches, [3, 48])
    assert list(chosen) == [3, 48] and gallery.examples(batches, []) == {}
    for number, batch in chosen.items():
        assert torch.equal(batch.labels[0], judged.labels[number])
        torch.testing.assert_close(model(batch.images).lengths[0], judged.lengths[number])


def test_reconstruction_error_is_that_of_the_true_digits():
    model, digits = small()
    batch = next(
        evaluation_batches(
            digits,
            seed=0,
            num_examples=5,
            batch_size=5,
            num_digits=1,
            image_size=28,
            max_shift=0,
        )
    )
    judged = judge(model, [batch], torch.float32)
    with torch.no_grad():
        pictures = model.decoder(model(batch.images).capsules, batch.labels)
    expected = ((pictures - batch.sources) ** 2).sum(dim=(2, 3))
    torch.testing.assert_close(judged.reconstruction_error, expected)


def test_the_sweep_changes_one_number_of_the_right_capsule_and_passes_through_zero():
    values = perturb.sweep_values(0.25, 0.05)
    assert len(values) == 11 and values[5] == 0
    torch.testing.assert_close(values[[0, 10]], torch.tensor([-0.25, 0.25]))
    model, _ = small()
    poses = torch.randn(3, 16) * 0.2
    images = perturb.sweep(model, poses, 4, values)
    assert images.shape == (3, 16, 11, 28, 28)
    capsules = torch.zeros(1, 10, 16)
    capsules[0, 4] = poses[1]
    label = torch.tensor([[4]])
    with torch.no_grad():
        unperturbed = model.decoder(capsules, label)[0, 0]
        capsules[0, 4, 7] += values[2]
        moved = model.decoder(capsules, label)[0, 0]
    for dimension in range(16):
        torch.testing.assert_close(images[1, dimension, 5], unperturbed)
    torch.testing.assert_close(images[1, 7, 2], moved)


def test_relative_change_by_hand():
    """Ends that differ by 2 in one pixel, on a digit with ink 4: one half."""
    images = torch.ones(1, 1, 3, 2, 2)
    images[0, 0, 2, 0, 0] = 3
    assert perturb.relative_change(images).tolist() == [0.5]


def test_the_affine_test_moves_each_digit_on_its_own_and_repeats(tmp_path, monkeypatch):
    model, digits = small()
    digits = Digits(digits.images[:1].expand(30, -1, -1), digits.labels)
    seen = []
    monkeypatch.setattr(
        evaluate.figures, "transformed", lambda _, moved, *a, **k: seen.append(moved)
    )
    settings = type(
        "Evaluate", (), dict(seed=1, batch_size=10, affine_degrees=30.0, affine_translate=0.1)
    )
    state = torch.get_rng_state()
    results = [
        evaluate.affine_test(model, digits, settings, torch.float32, tmp_path, "mnist")
        for _ in range(2)
    ]
    assert torch.equal(torch.get_rng_state(), state) and results[0] == results[1]
    assert (seen[0] == seen[1]).all() and len({image.tobytes() for image in seen[0]}) == len(
        seen[0]
    )


def test_tables_are_read_back_as_written(tmp_path):
    from stages.output import rounded, write_csv

    write_csv(tmp_path / "a" / "table.csv", pd.DataFrame({"x": [1 / 3, float("nan")]}))
    assert (tmp_path / "a" / "table.csv").read_text() == 'x\n0.333333\n""\n'
    assert rounded({"a": {"b": 2 / 3}, "c": float("nan")}) == {"a": {"b": 0.666667}, "c": None}


def test_the_published_affnist_is_tested_where_params_yaml_points_to_it(tmp_path):
    """A file in its format of four black images, all labelled 1: each is right or each is wrong."""
    fields = {"image": np.zeros((1600, 4), np.uint8), "label_int": np.ones((1, 4), np.uint8)}
    savemat(tmp_path / "1.mat", {"affNISTdata": fields})
    params = load_params()
    budget = replace(params.chosen_budget, study_examples=10)
    params = replace(
        params,
        budgets={params.budget: budget},
        runs={"wide": Run(task="mnist40", network="capsnet")},
        data=replace(params.data, affnist=str(tmp_path / "1.mat")),
    )
    paths = {name: tmp_path / f"{name}.csv" for name in evaluate.TABLES}
    arguments = Namespace(run="wide", figures=tmp_path / "figures", **paths)
    model = CapsNet(image_size=40, conv_channels=4, primary_types=2, decoder_sizes=None).eval()
    digits = small()[1]
    batches = partial(
        evaluation_batches, digits, seed=1, batch_size=10, num_digits=1, image_size=40, max_shift=6
    )
    outcome = judge(model, batches(num_examples=10), torch.float32)
    given = params, arguments, model, digits, batches, outcome, torch.float32
    found = evaluate.study(*given)["robustness"]
    assert found["affnist"]["examples"] == 4 and found["affnist"]["error"] in (0, 100)
