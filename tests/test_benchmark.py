"""The benchmark writes what it measured; its arithmetic is checked on made-up times."""

import json
from math import isfinite
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.functional import conv2d

from capsnet.benchmark import __main__ as benchmark
from capsnet.benchmark import contestants, results
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.convolution import convolve

TOY = ["--batch-size", "2", "--rounds", "2", "--conv-channels", "4", "--primary-types", "1"]
TOY += ["--device", "cpu"]
TIMES = {  # seconds a batch, by round
    "conv2d": [1.0, 2.5, 2.0],
    "convolve": [0.5, 3.0, 1.5],
    "product": [1.0, 2.0, 2.0],
    "training": [1.0, 4.0, 6.0],
    "evaluation": [0.25, 0.25, 0.5],
    "composition": [0.1, 0.1, 0.1],
    "route": [0.1, 0.2, 0.4],
    "route_reference": [0.5, 2.0, 2.0],
}


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contestants, "RUN_TIME", 0.0001)
        patch.setitem(contestants.PRODUCT_SIZE, "cpu", 64)
        benchmark.main(["--out", str(folder), *TOY])
    return folder


def test_a_slow_step_leaves_a_profile(tmp_path, monkeypatch):
    """Every step is slower than a million times a plain product."""
    monkeypatch.setattr(contestants, "RUN_TIME", 0.0001)
    monkeypatch.setitem(contestants.PRODUCT_SIZE, "cpu", 64)
    benchmark.main(["--out", str(tmp_path), "--profile", "1e6", *TOY, "--rounds", "1"])
    for name in benchmark.TASKS:
        assert "onvolution" in (tmp_path / f"profile_{name}.txt").read_text()


def test_four_files_and_no_other(toy_run):
    names = {path.name for path in toy_run.iterdir()}
    assert names == {"benchmark.md", "benchmark.json", "growth.csv", "growth.png"}


def test_the_table_has_every_measure_of_both_sizes_and_says_where_it_comes_from(toy_run):
    text = (toy_run / "benchmark.md").read_text()
    assert "| measure | unit | 28x28 | 36x36 | target | met |" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == list(results.MEASURES)
    assert all(cell for row in rows for cell in row[:4])
    for word in ("command: `python -m capsnet", "commit: `", "date: `", "hardware: `", "torch: `"):
        assert word in text
    assert "batch size: `2 images`" in text


def test_every_number_is_finite_and_positive(toy_run):
    measures = json.loads((toy_run / "benchmark.json").read_text())["measures"]
    assert list(measures) == list(results.MEASURES)
    for row in measures.values():
        for task in benchmark.TASKS:
            values = [row["median"][task], *row["rounds"][task]]
            assert all(isfinite(value) and value > 0 for value in values)
    table = pd.read_csv(toy_run / "growth.csv")
    assert (table["seconds"] > 0).all()
    assert set(table["growing"]) == {"images", "lower capsules", "iterations", "training"}


def test_medians_and_ratios_of_made_up_times():
    """Batches of 4. `convolve` has the better median, 1.5 s, though not in every round, so it is
    the floor. Training has by round 0.5/1, 3/4 and 1.5/6 of its speed: median 0.5 (of the medians:
    1.5/4). route is 5, 10 and 5 times as fast. Composition at 0.1 s is 10, 40 and 60 times as fast
    as training. 3 of 30 MiB are a tenth. The product does 8, 4 and 4 GMAC/s, the step 2, 1/2 and
    1/3: a quarter, an eighth and a twelfth."""
    memory = {"route": 3 * 2.0**20, "route_reference": 30 * 2.0**20, "training": 2.0**30}
    values = results.derive(TIMES, memory, 4, {"product": 8 * 10**9, "training": 2 * 10**9})
    assert values["plain matrix product"] == [8, 4, 4]
    share = values["arithmetic of the training step / of the product"]
    assert share == pytest.approx([1 / 4, 1 / 8, 1 / 12])
    assert values["training speed / floor"] == [0.5, 0.75, 0.25]
    assert values["speed of route / of route_reference"] == [5, 10, 5]
    assert values["composition / training speed"] == pytest.approx([10, 40, 60])
    assert values["memory of route / of route_reference"] == [0.1]
    row = results.row_of("convolution floor, our convolve", {"28x28": values})
    assert row.median == {"28x28": 4 / 1.5}
    both = {"28x28": values, "36x36": values}
    met = {name: results.row_of(name, both).met for name in results.MEASURES}
    assert met["training speed / floor"] == {"28x28": False, "36x36": False}
    assert met["speed of route / of route_reference"] == {"28x28": True, "36x36": True}
    assert met["memory of route / of route_reference"] == {"28x28": True, "36x36": True}
    assert met["composition / training speed"] == {"36x36": True}
    assert "| training speed / floor | x | 0.500 (0.250 to 0.750) |" in results.markdown({}, both)


def test_both_floors_have_the_gradients_of_training():
    """Weights and biases of both layers; the weight of the first needs the gradient of the second's
    input. Equal by both ways, and to autograd through the sum of squares over two."""
    torch.manual_seed(0)
    model = CapsNet(image_size=20, conv_channels=4, primary_types=2)
    images = torch.rand(3, 1, 20, 20)
    ours, library = (
        contestants.convolutions(model, images, torch.float32, way) for way in (convolve, conv2d)
    )
    torch.testing.assert_close(ours, library, rtol=1e-4, atol=1e-4)
    output = model.primary.convolution(model.convolution(images).relu())
    layers = [*model.convolution.parameters(), *model.primary.convolution.parameters()]
    expected = torch.autograd.grad(output.square().sum() / 2, layers)
    torch.testing.assert_close(library, expected, rtol=1e-4, atol=1e-4)


def test_a_round_times_every_contestant_and_the_next_goes_backwards(monkeypatch):
    """Of calls of 2 ms, the second of which is two batches. Each is called at least twice in a
    row: to warm up, then to be timed."""
    monkeypatch.setattr(contestants, "RUN_TIME", 0.0001)
    called = []

    def sleep(name):
        called.append(name)
        torch.ones(2**20).sort()

    made_up = {
        name: contestants.Contestant(lambda name=name: sleep(name), num_batches)
        for name, num_batches in (("one", 1), ("two", 2))
    }
    seconds = contestants.time_in_rounds(made_up, 2)
    assert {name: len(times) for name, times in seconds.items()} == {"one": 2, "two": 2}
    turns = [name for name, before in zip(called, [None, *called], strict=False) if name != before]
    assert turns == ["one", "two", "one"]


def test_extra_memory_is_of_the_call_alone():
    """A call that fills 64 MiB of float32 and gives back 16 images of 1 x 1 numbers."""
    shape = torch.Size((1, 1, 1, 1))
    measured = contestants.extra_memory(greedy_route, 16, shape, torch.device("cpu"))
    assert 63 * 2**20 < measured < 80 * 2**20


def greedy_route(lower, weight, *, num_iterations):
    torch.ones(2**20 * len(lower))
    return lower[:, :1] * weight.sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "benchmark: --batch-size is 0, wanted 1 or more\n"),
        (["--device", "abacus"], "benchmark: --device abacus: "),
        (["--digits", "nowhere"], "benchmark: nowhere/train-images-idx3-ubyte.gz is missing: "),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main([*arguments, "--out", str(tmp_path / "none")])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not (tmp_path / "none").exists()
