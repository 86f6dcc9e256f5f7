"""What is reported: the measures with their targets, and the four files that hold them."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pandas as pd

from capsnet.benchmark.draw import growth as draw_growth
from capsnet.files import replace_file

MIB = 2**20
SHARE = "arithmetic of the training step / of the product"


class Target(NamedTuple):
    """A ratio that is wanted at least or at most, of these tasks."""

    sign: str
    bound: float
    tasks: tuple[str, ...] = ("28x28", "36x36")

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.sign == "at least" else ratio <= self.bound


class Measure(NamedTuple):
    """A row of the table; a ratio has the unit "x"."""

    unit: str
    target: Target | None = None


class Row(NamedTuple):
    """A measure as it came out: of each task the median and the values by round."""

    unit: str
    median: dict[str, float]
    rounds: dict[str, list[float]]
    target: str
    met: dict[str, bool]


MEASURES = {
    "convolution floor, library's conv2d": Measure("images/s"),
    "convolution floor, our convolve": Measure("images/s"),
    "training step": Measure("images/s"),
    "training speed / floor": Measure("x", Target("at least", 0.8)),
    "plain matrix product": Measure("GMAC/s"),
    SHARE: Measure("x"),
    "memory at the peak of a training step": Measure("MiB"),
    "routing, route": Measure("ms"),
    "routing, route_reference": Measure("ms"),
    "speed of route / of route_reference": Measure("x", Target("at least", 5)),
    "routing, extra memory of route": Measure("MiB"),
    "routing, extra memory of route_reference": Measure("MiB"),
    "memory of route / of route_reference": Measure("x", Target("at most", 0.1)),
    "composition": Measure("images/s"),
    "composition / training speed": Measure("x", Target("at least", 20, ("36x36",))),
    "evaluation": Measure("images/s"),
}
NOTE = """Medians over the rounds; in brackets the least and the most of a round's ratios. The floor
is both convolutions, forward and backward, by the way with the better median. The plain matrix
product is the library's, of two large square matrices in the convolutions' precision: a step that
did nothing but multiply, as fast, would have the ratio 1 (its multiply-adds: three times those of
a prediction). Memory is the allocator's on a GPU, else the process's. Routing is forward
and backward, 3 iterations, float32. On 36x36 an image is a pair of digits. Targets are set for
batches of 128 on two CPU cores with AVX512-BF16; elsewhere they only compare."""


def derive(
    seconds: dict[str, list[float]],
    memory: dict[str, float],
    batch_size: int,
    multiply_adds: dict[str, int],
) -> dict[str, list[float]]:
    """Seconds a batch by round, bytes, and the multiply-adds of the plain product and of a training
    step's batch -> the values of MEASURES, by round.
    """
    speed = {name: [batch_size / each for each in times] for name, times in seconds.items()}
    floor = max("conv2d", "convolve", key=lambda name: median(speed[name]))
    routing = [speed["route"], speed["route_reference"]]
    rate = {
        name: [multiply_adds[name] / each for each in seconds[name]]
        for name in ("product", "training")
    }
    values = [
        speed["conv2d"],
        speed["convolve"],
        speed["training"],
        ratios(speed["training"], speed[floor]),
        [each / 1e9 for each in rate["product"]],
        ratios(rate["training"], rate["product"]),
        [memory["training"] / MIB],
        [1000 * each for each in seconds["route"]],
        [1000 * each for each in seconds["route_reference"]],
        ratios(*routing),
        [memory["route"] / MIB],
        [memory["route_reference"] / MIB],
        [memory["route"] / memory["route_reference"]],
        speed["composition"],
        ratios(speed["composition"], speed["training"]),
        speed["evaluation"],
    ]
    return dict(zip(MEASURES, values, strict=True))


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(first, second, strict=True)]


def write(
    folder: Path, about: dict[str, str], measured: dict[str, dict], growth: pd.DataFrame
) -> None:
    """Four files; and print."""
    title = "How time grows with images, capsules and iterations"
    text = "\n\n".join([markdown(about, measured), NOTE, f"![{title}](growth.png)"]) + "\n"
    raw = about | {"measures": {name: row_of(name, measured)._asdict() for name in MEASURES}}
    contents = {
        "benchmark.md": text,
        "benchmark.json": json.dumps(raw, indent=2) + "\n",
        "growth.csv": growth.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
    }
    for name, content in contents.items():
        replace_file(folder / name, content.encode())
    draw_growth(growth, folder / "growth.png", title=title)
    print(text)


def row_of(name: str, measured: dict[str, dict]) -> Row:
    unit, target = MEASURES[name]
    rounds = {task: values[name] for task, values in measured.items()}
    medians = {task: median(values) for task, values in rounds.items()}
    met = {task: target.met(medians[task]) for task in target.tasks} if target else {}
    wanted = f"{target.sign} {target.bound:g}" if target else ""
    return Row(unit, medians, rounds, wanted, met)


def markdown(about: dict[str, str], measured: dict[str, dict]) -> str:
    lines = ["# Benchmark", "", *(f"- {name}: `{text}`" for name, text in about.items()), ""]
    lines += [f"| measure | unit | {' | '.join(measured)} | target | met |"]
    lines += ["|" + " --- |" * (4 + len(measured))]
    for name in MEASURES:
        row = row_of(name, measured)
        cells = [cell(row.unit, values) for values in row.rounds.values()]
        met = ", ".join(f"{task} {'yes' if met else 'no'}" for task, met in row.met.items())
        lines.append(f"| {' | '.join([name, row.unit, *cells, row.target, met])} |")
    return "\n".join(lines)


def cell(unit: str, values: Sequence[float]) -> str:
    """The median, three digits at least; of a ratio also the least and the most of a round."""
    shown = [
        f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
        for value in (median(values), min(values), max(values))
    ]
    spread = unit == "x" and len(values) > 1
    return "{} ({} to {})".format(*shown) if spread else shown[0]
