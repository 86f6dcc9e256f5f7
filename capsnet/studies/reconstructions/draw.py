"""Figures 3 (one digit) and 5 (two digits) of Sabour et al. 2017, digits white on black."""

from collections.abc import Sequence
from pathlib import Path

from capsnet.config import RunConfig
from capsnet.data.archives import TEN_DIGITS
from capsnet.plots.canvas import INK, ORANGE, PURPLE, color_key, overlay
from capsnet.plots.pictures import Column, cut, in_color, picture_columns
from capsnet.studies.reconstructions.measure import Reconstruction
from capsnet.studies.registry import Measured

Names = Sequence[str]
COLORS = {"correct": INK, "wrong": ORANGE, "neither": PURPLE}


def heading(one: Reconstruction, classes: Sequence[str] = TEN_DIGITS) -> str:
    """The digits of an example, for example true 8, read 1, drawn 8 in three lines."""
    lines = {"true": one.labels, "read": one.predictions, "drawn": one.decoded}
    return "\n".join(
        cut(f"{word} {', '.join(classes[each] for each in of)}") for word, of in lines.items()
    )


def single(
    examples: Sequence[Reconstruction],
    path: Path,
    *,
    title: str,
    classes: Sequence[str] = TEN_DIGITS,
) -> None:
    """Figure 3: each image above its reconstruction; failures below."""
    columns = []
    for one in examples:
        pictures, group = in_color([one.image, one.reconstructions[0]]), int(one.case == "wrong")
        columns.append(Column(heading(one, classes), COLORS[one.case], group, pictures))
    note = "True, read and drawn digit: label l, prediction p and reconstruction target r of the "
    note += "paper's Figure 3."
    if any(column.group for column in columns):
        note += " Orange: read wrongly, drawn from the capsules of both digits."
    picture_columns(columns, path, names=["input", "recon-\nstruction"], title=title, note=note)


def overlaid(
    examples: Sequence[Reconstruction],
    path: Path,
    *,
    title: str,
    classes: Sequence[str] = TEN_DIGITS,
) -> None:
    """Figure 5: each image above its two sources and its two reconstructions, in two colours."""
    columns, cases = [], {one.case for one in examples}
    for one in examples:
        pictures = [*in_color([one.image]), overlay(one.sources), overlay(one.reconstructions)]
        group = list(COLORS).index(one.case)
        columns.append(Column(heading(one, classes), COLORS[one.case], group, pictures))
    note = "True: labels, L in the paper's Figure 5. Read: predictions. Drawn: decoded classes, R."
    if "wrong" in cases:
        note += " Orange: the wrong predictions are drawn, P."
    if "neither" in cases:
        note += " Purple: a digit is drawn that is neither true nor read, *; it should be empty."
    names = ["input", "true\ndigits", "recon-\nstructions"]
    picture_columns(columns, path, names=names, title=title, note=note, key=color_key())


def draw(found: Measured, folder: Path, config: RunConfig) -> None:
    path = folder / "figures" / "reconstructions.png"
    if found.pictures is None:
        return
    if config.task.num_digits == 1:
        figure, title = single, f"{config.title}: test digits and reconstructions"
    else:
        figure, title = overlaid, f"{config.title}: both digits reconstructed"
    figure(found.pictures, path, title=title, classes=found.classes)
