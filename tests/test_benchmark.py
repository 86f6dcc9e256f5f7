"""The benchmark: ratios of made-up times, the targets, what a candidate computes."""

import pandas as pd

from capsnet import benchmark


def test_ratios_are_medians_over_the_rounds():
    """Training has 0.5/1, 3/4 and 1.5/6 of the speed of its convolutions: the median is 0.5, that
    of the medians 1.5/4. `route` is 5, 10 and 5 times as fast as `route_reference`.
    """
    seconds = pd.DataFrame({"training": [1, 4, 6], "convolve": [0.5, 3, 1.5]})
    seconds = seconds.assign(route=[0.1, 0.2, 0.4], route_reference=[0.5, 2, 2])
    seconds = seconds.assign(composition=0.2, conv2d=1, evaluation=1)
    memory = {"route": 3 * 2**20, "route_reference": 30 * 2**20}
    measures = benchmark.derive(seconds, memory, batch_size=4)
    assert measures["training (images/s)"].median() == 1
    assert measures["memory of route (MiB)"].tolist() == [3, 3, 3]
    table = benchmark.compare({"one": measures, "two": 1.6 * measures})
    table = table[-len(benchmark.TARGETS) :]
    assert table["met"].tolist() == ["no, yes", "yes, yes", "yes, yes", "yes, yes"]
    ratios = ["0.500 (0.250 to 0.750)", "20.0 (5.00 to 30.0)", "5.00 (5.00 to 10.0)", "10.0"]
    assert table["one"].tolist() == ratios
