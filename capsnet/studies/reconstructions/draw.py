"""Figures 3 (one digit) and 5 (two digits) of Sabour et al. 2017, digits white on black."""

from collections.abc import Sequence
from pathlib import Path

from capsnet.config import RunConfig
from capsnet.plots.canvas import INK, ORANGE, PURPLE, color_key, overlay
from capsnet.plots.pictures import Column, picture_columns
from capsnet.studies.registry import Measured


def reconstructions(examples: Sequence, path: Path, *, title: str) -> None:
    """Figure 3: each `image` [h, w] above its `reconstruction` under three digits, `label`,
    `prediction` and `decoded`; failures (label != prediction) to the right.
    """
    columns = []
    for one in examples:
        failed = one.label != one.prediction
        heading = f"({one.label}, {one.prediction}, {one.decoded})"
        pictures = [one.image, one.reconstruction]
        columns.append(Column(heading, ORANGE if failed else INK, int(failed), pictures))
    note = "(label, prediction, digit whose capsule is decoded)"
    if any(column.group for column in columns):
        note += "; in orange, at the end: failures of the network"
    picture_columns(columns, path, names=["input", "recon-\nstruction"], title=title, note=note)


def overlaid_reconstructions(examples: Sequence, path: Path, *, title: str) -> None:
    """Figure 5: an `image` [h, w] of two digits, its two `sources` and the `reconstructions`
    [2, h, w] of the two digits `decoded`, in two colours. Decoded are the "correct" digits, the
    network's "wrong" ones, or one that is "neither": the `case`.
    """
    cases = {"correct": ("R:", INK), "wrong": ("R:P:", ORANGE), "neither": ("*R:", PURPLE)}
    columns = []
    for one in examples:
        mark, color = cases[one.case]
        heading = "{}({},{})\nL:({},{})".format(mark, *one.decoded, *one.labels)
        pictures = [one.image, overlay(one.sources), overlay(one.reconstructions)]
        columns.append(Column(heading, color, list(cases).index(one.case), pictures))
    note = "L: the two labels; R: the two digits whose capsules are decoded"
    if any(one.case == "wrong" for one in examples):
        note += "; P: the network's wrong prediction is decoded"
    if any(one.case == "neither" for one in examples):
        note += "; *: one of them is neither label nor prediction and should come out empty"
    names = ["input", "true\ndigits", "recon-\nstructions"]
    picture_columns(columns, path, names=names, title=title, note=note, key=color_key())


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    path = folder / "figures" / "reconstructions.png"
    if found.pictures is None:
        return
    if config.task.num_digits == 1:
        title = f"{run}: test digits and their reconstructions"
        reconstructions(found.pictures, path, title=title)
    else:
        overlaid_reconstructions(found.pictures, path, title=f"{run}: two digits, told apart")
