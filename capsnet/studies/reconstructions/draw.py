"""Figures 3 (one digit) and 5 (two digits) of Sabour et al. 2017, digits white on black."""

from collections.abc import Sequence
from pathlib import Path

from capsnet.config import RunConfig
from capsnet.plots.canvas import INK, ORANGE, PURPLE, color_key, overlay
from capsnet.plots.pictures import Column, picture_columns
from capsnet.studies.reconstructions.measure import Reconstruction
from capsnet.studies.registry import Measured

CASES = {"correct": ("R:", INK), "wrong": ("R:P:", ORANGE), "neither": ("*R:", PURPLE)}


def single(examples: Sequence[Reconstruction], path: Path, *, title: str) -> None:
    """Figure 3: each image above its reconstruction; failures to the right."""
    columns = []
    for one in examples:
        heading = f"({one.labels[0]}, {one.predictions[0]}, {one.decoded[0]})"
        pictures, color = [one.image, one.reconstructions[0]], CASES[one.case][1]
        columns.append(Column(heading, color, int(one.case == "wrong"), pictures))
    note = "(label, prediction, decoded class)"
    if any(column.group for column in columns):
        note += "; orange: wrong predictions"
    picture_columns(columns, path, names=["input", "recon-\nstruction"], title=title, note=note)


def overlaid(examples: Sequence[Reconstruction], path: Path, *, title: str) -> None:
    """Figure 5: each image above its two sources and its two reconstructions, in two colours."""
    columns = []
    for one in examples:
        mark, color = CASES[one.case]
        heading = "{}({},{})\nL:({},{})".format(mark, *one.decoded, *one.labels)
        pictures = [one.image, overlay(one.sources), overlay(one.reconstructions)]
        columns.append(Column(heading, color, list(CASES).index(one.case), pictures))
    note = "L: labels; R: decoded classes"
    if any(one.case == "wrong" for one in examples):
        note += "; P: the wrong prediction is decoded"
    if any(one.case == "neither" for one in examples):
        note += "; *: one decoded class is neither label nor prediction and should be empty"
    names = ["input", "true\ndigits", "recon-\nstructions"]
    picture_columns(columns, path, names=names, title=title, note=note, key=color_key())


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    path = folder / "figures" / "reconstructions.png"
    if found.pictures is None:
        return
    if config.task.num_digits == 1:
        single(found.pictures, path, title=f"{run}: test digits and reconstructions")
    else:
        overlaid(found.pictures, path, title=f"{run}: two digits, reconstructed separately")
