"""Trainings in a table and in sentences."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from capsnet.config import RunConfig
from capsnet.studies.results import Results, Section, markdown, number

COLUMNS = """GMAC: billions of multiply-adds for one image, without the decoder. Times and memory
are those of the machine that trained. images/s is the median over the curve. Validation digits are
held out of the training split. The training error is on training digits, shown as those are."""


def overview(
    configs: dict[str, RunConfig], measured: dict[str, Results], drawn: Path, here: Path
) -> Iterator[str]:
    last = {name: results.tables["training"].iloc[-1] for name, results in measured.items()}
    yield markdown(
        {
            "run": name,
            "parameters": f"{last[name]['num_parameters']:,.0f}",
            "GMAC": f"{last[name]['multiply_adds'] / 1e9:.2f}",
            "images shown": f"{last[name]['examples']:,.0f}",
            "images/s": f"{results.headline['images_per_second']:.0f}",
            "minutes": f"{results.headline['minutes']:.1f}",
            "peak host memory MiB": f"{last[name]['peak_memory_mib']:.0f}",
            "final loss": f"{results.headline['loss']:.4f}",
            "validation error %": number(last[name]["validation_error"]),
            "training error %": number(last[name]["training_error"]),
        }
        for name, results in measured.items()
    )
    yield COLUMNS


def training(results: Results, config: RunConfig) -> str:
    curve, headline = results.tables["training"], results.headline
    last = curve.iloc[-1]
    sentence = (
        f"The loss is {headline['loss']:.3f} after {headline['minutes']:.1f} minutes and "
        f"{last['examples']:,.0f} examples"
    )
    if len(curve) > 1:
        change = 100 * (last["loss"] / curve["loss"].iloc[-2] - 1)
        way = "lower" if change < 0 else "higher"
        sentence += f", {abs(change):.0f} % {way} than one interval earlier"
    sentence += "."
    if pd.notna(last["validation_error"]):
        sentence += (
            f" At the end the validation error is {last['validation_error']:.2f} % and the "
            f"training error {last['training_error']:.2f} %, on equally many examples."
        )
    return sentence


SECTION = Section("Training", (training,), overview=overview)
