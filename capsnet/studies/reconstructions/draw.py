"""Figures 3 (one digit) and 5 (two digits) of Sabour et al. 2017, digits white on black."""

from collections.abc import Sequence
from pathlib import Path

from capsnet.config import RunConfig
from capsnet.data.archives import TEN_DIGITS
from capsnet.plots.canvas import INK, ORANGE, PURPLE, color_key, overlay
from capsnet.plots.pictures import Column, cut, in_color, picture_columns
from capsnet.studies.reconstructions.measure import Reconstruction
from capsnet.studies.registry import Measured

COLORS = {"correct": INK, "wrong": ORANGE, "neither": PURPLE}
NOTES = {  # of the cases in a figure of one digit, and in one of two
    1: {
        "": "True, read and drawn digit: label l, prediction p and reconstruction target r of the "
        "paper's Figure 3.",
        "wrong": " Orange: read wrongly, drawn from the capsules of both digits.",
    },
    2: {
        "": "True: labels, L in the paper's Figure 5. Read: predictions. Drawn: decoded classes, "
        "R.",
        "wrong": " Orange: the wrong predictions are drawn, P.",
        "neither": " Purple: a digit is drawn that is neither true nor read, *; it should be "
        "empty.",
    },
}


def heading(one: Reconstruction, classes: Sequence[str] = TEN_DIGITS) -> str:
    """The digits of an example, for example true 8, read 1, drawn 8 in three lines."""
    lines = {"true": one.labels, "read": one.predictions, "drawn": one.decoded}
    return "\n".join(
        cut(f"{word} {', '.join(classes[each] for each in of)}") for word, of in lines.items()
    )


def reconstructions(
    examples: Sequence[Reconstruction], path: Path, *, title: str,
    classes: Sequence[str] = TEN_DIGITS
) -> None:  # fmt: skip
    """Each image above its reconstruction, Figure 3, or above both true digits and both
    reconstructions in two colours, Figure 5; failures below.
    """
    columns, names, key = [], ["input", "recon-\nstruction"], None
    single, cases = len(examples[0].labels) == 1, {"", *(one.case for one in examples)}
    if not single:
        names, key = ["input", "true\ndigits", "recon-\nstructions"], color_key()
    for one in examples:
        pictures = in_color([one.image, one.reconstructions[0]][: 1 + single])
        pictures += [] if single else [overlay(one.sources), overlay(one.reconstructions)]
        group = list(COLORS).index(one.case)
        columns.append(Column(heading(one, classes), COLORS[one.case], group, pictures))
    note = "".join(text for case, text in NOTES[2 - single].items() if case in cases)
    picture_columns(columns, path, names=names, title=title, note=note, key=key)


def draw(found: Measured, folder: Path, config: RunConfig) -> None:
    if found.pictures is None:
        return
    what = "test digits and reconstructions"
    if config.task.num_digits > 1:
        what = "both digits reconstructed"
    path, title = folder / "figures" / "reconstructions.png", f"{config.title}: {what}"
    reconstructions(found.pictures, path, title=title, classes=found.classes)
