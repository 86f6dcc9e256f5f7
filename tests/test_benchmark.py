"""The benchmark: ratios of made-up times, the targets, what a candidate computes, one tiny run."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pandas as pd
import torch
from torch.nn.functional import conv2d

from capsnet import benchmark
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.convolution import convolve

CPU = torch.device("cpu")


def test_ratios_are_medians_over_the_rounds():
    """Training has 0.5/1, 3/4 and 1.5/6 of the speed of its convolutions: the median is 0.5, that
    of the medians 1.5/4. `route` is 5, 10 and 5 times as fast as `route_reference`.
    """
    seconds = pd.DataFrame({"training": [1, 4, 6], "convolve": [0.5, 3, 1.5]})
    seconds = seconds.assign(route=[0.1, 0.2, 0.4], route_reference=[0.5, 2, 2])
    seconds = seconds.assign(composition=0.2, conv2d=1, product=1, evaluation=1)
    memory = pd.Series({"training": 1, "route": 3 * 2**20, "route_reference": 30 * 2**20})
    measures = benchmark.derive(seconds, memory, batch_size=4)
    assert measures["training (images/s)"].median() == 1
    assert measures["memory of route (MiB)"].tolist() == [3, 3, 3]
    table = benchmark.compare({"one": measures, "two": 1.6 * measures}).set_index("measure")
    met = table.loc[list(benchmark.TARGETS), "met"]
    assert met.tolist() == ["no, yes", "yes, yes", "yes, yes", "yes, yes"]
    ratios = table.loc[list(benchmark.TARGETS), "one"]
    assert ratios.tolist() == [
        "0.500 (0.250 to 0.750)",
        "20.0 (5.00 to 30.0)",
        "5.00 (5.00 to 10.0)",
        "10.0",
    ]


def test_convolutions_have_the_gradients_of_training():
    """Equal for both implementations, and to autograd through half the sum of squares."""
    torch.manual_seed(0)
    model = CapsNet(image_size=20, conv_channels=4, primary_types=2)
    images = torch.rand(3, 1, 20, 20)
    output = model.primary.convolution(model.convolution(images).relu())
    layers = [*model.convolution.parameters(), *model.primary.convolution.parameters()]
    expected = torch.autograd.grad(output.square().sum() / 2, layers)
    for way in (convolve, conv2d):
        found = benchmark.convolutions(model, images, torch.float32, way)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_memory_is_that_of_the_call_alone():
    """64 MiB: 16 images, 1 MiB of float32 numbers for each."""

    def route(lower, weight, *, num_iterations):
        torch.ones(2**20 * len(lower))
        return lower[:, :1] * weight.sum()

    assert 63 * 2**20 < benchmark.extra_memory(route, 16, 1, CPU) < 80 * 2**20


def test_a_run_times_every_candidate(tmp_path, monkeypatch):
    """On CUDA it may use TF32, as a training may."""
    called, report = [], tmp_path / "report.md"
    monkeypatch.setattr(benchmark, "MIN_RUN_TIME", 0.0001)
    monkeypatch.setattr(benchmark, "CapsNet", partial(CapsNet, conv_channels=4, primary_types=1))
    monkeypatch.setattr(benchmark, "multiply_adds", lambda *_: 4096**2)
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(benchmark.hardware, "choose_device", lambda: CPU)
    monkeypatch.setattr(benchmark.hardware, "allow_tf32", lambda *setting: called.append(setting))
    options = ["--precision", "float32", "--batch-size", "2", "--rounds", "1", "--out", str(report)]
    monkeypatch.setattr("sys.argv", ["benchmark", *options])
    benchmark.main()
    assert called == [(CPU, torch.float32)]
    rows = [line.split("|") for line in report.read_text().splitlines() if "(images/s)" in line]
    assert len(rows) == 8
    assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row[2:4])
