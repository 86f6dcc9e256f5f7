"""Data of the tutorial's pictures (a face, sixes), tables and figures that serve one step."""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from drawing import BLUE, GREY, ORANGE, WIDTH, arrows, figure, picture, plane
from matplotlib.patches import Circle, Rectangle
from scipy.interpolate import make_interp_spline
from torch import Tensor

SIZE = 11  # pixels, of a part of the face


def face_parts() -> dict[str, Tensor]:
    """Two eyes, a nose and a mouth: images [SIZE, SIZE] in [0, 1]."""
    down, right = torch.meshgrid(*[torch.arange(SIZE) - SIZE // 2.0] * 2, indexing="ij")
    radius = (down**2 + right**2).sqrt()
    ring = (radius - 4).abs() < 0.8
    return {
        "left eye": (ring | (((right - 1.5).abs() < 1.2) & (down.abs() < 1.2))).float(),
        "right eye": (ring | (((right + 1.5).abs() < 1.2) & (down.abs() < 1.2))).float(),
        "nose": (((right.abs() - (down + 4) / 2).abs() < 0.8) & (down > -5)).float(),
        "mouth": (((radius - 5).abs() < 0.9) & (down > 1)).float(),
    }


def stroke(*points: tuple[float, float], thickness: float = 1.5) -> Tensor:
    """A smooth line through points (down, right) in pixels: an image [28, 28]."""
    places = np.array(points, dtype=float)
    line = make_interp_spline(np.linspace(0, 1, len(places)), places, k=min(3, len(places) - 1))
    dense = torch.tensor(line(np.linspace(0, 1, 200)), dtype=torch.float32)
    pixels = torch.cartesian_prod(torch.arange(28.0), torch.arange(28.0))
    distance = torch.cdist(pixels, dense).amin(dim=1).view(28, 28)
    return (thickness + 0.5 - distance).clamp(0, 1)


def sixes() -> Tensor:
    """A 6 of two strokes, the same with its bowl on top, and with the bowl apart: [3, 28, 28]."""
    stem = stroke((4, 16), (8, 12), (13, 10), (18, 10))
    bowl = stroke((18, 10), (14, 14), (17, 18), (22, 16), (22, 11), (18, 10))
    on_top, apart = bowl.roll((-9, 6), dims=(0, 1)), bowl.roll((-5, 7), dims=(0, 1))
    strokes = ((stem, bowl), (stem, on_top), (stem.roll((0, -5), dims=(0, 1)), apart))
    return torch.stack([torch.maximum(*two) for two in strokes])


def squash_curve(squash: Callable[[Tensor], Tensor]) -> None:
    """The length after `squash` against the length before, and vectors before and after."""
    [axes] = figure(1, 2, 3.9)
    lengths = torch.linspace(0.01, 5, 200)
    axes[0].plot(lengths, squash(lengths[:, None])[:, 0], color=BLUE)
    axes[0].axhline(1, color=GREY, ls="--", lw=1.2)
    axes[0].set(xlabel="length of s", ylabel="length of v", ylim=(0, 1.1), xlim=(0, lengths.max()))
    axes[0].set_title("squash shrinks a vector ...")
    angles = torch.linspace(0.3, 2 * torch.pi - 0.4, 6)
    before = torch.linspace(0.4, 2.9, 6)[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
    arrows(axes[1], before, GREY, width=0.008)
    arrows(axes[1], squash(before), BLUE, width=0.016)
    axes[1].add_patch(Circle((0, 0), 1, fill=False, color=GREY, ls="--", lw=1.2))
    plane(axes[1], 2.9)
    axes[1].set_title("... and keeps its direction")
    axes[1].text(-2.8, 2.4, "s", color=GREY)
    axes[1].text(-2.8, 1.9, "v = squash(s)", color=BLUE)


def routing_tables(
    parts: Sequence[str], wholes: Sequence[str], b: Tensor, c: Tensor, s: Tensor, v: Tensor
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Logits b and couplings c [r, i, j] of each part, sums s and capsules v [r, j, 2] of each
    whole, by iteration.
    """
    rounds = range(1, len(b) + 1)
    names = [f"{letter} {whole}" for letter in "bc" for whole in wholes]
    columns = pd.MultiIndex.from_product([names, rounds], names=["", "iteration"])
    by_part = torch.cat([b, c], dim=2).permute(1, 2, 0).flatten(1)
    rows = pd.MultiIndex.from_product([rounds, wholes], names=["iteration", "whole"])
    by_whole = torch.cat([s, v, v.norm(dim=2, keepdim=True)], dim=2).flatten(0, 1)
    names = ["s x", "s y", "v x", "v y", "length of v"]
    tables = (by_part, parts, columns), (by_whole, rows, names)
    return tuple(pd.DataFrame(values.tolist(), *axes).round(2) for values, *axes in tables)


BLOCKS = (  # name, shape, height, width (relative), sheets, colour
    ("image", "28x28", 0.8, 0.5, 1, GREY),
    ("convolution", "256 of 20x20", 0.65, 0.4, 4, BLUE),
    ("primary capsules", "1,152 of 8", 0.5, 0.1, 6, BLUE),
    ("class capsules", "10 of 16", 0.7, 0.1, 4, BLUE),
    ("one capsule", "16", 0.7, 0.1, 1, BLUE),
    ("linear layers", "512, 1,024", 0.65, 0.4, 1, BLUE),
    ("reconstruction", "28x28", 0.8, 0.5, 1, GREY),
)


def network() -> None:
    """The blocks of the network from left to right, with the names of its two halves."""
    [[axes]] = figure(1, 1, 3.9)
    x, ends = 0.0, []
    for number, (name, shape, height, width, sheets, color) in enumerate(BLOCKS):
        ends.append((x, x + width + 0.06 * (sheets - 1)))
        for sheet in range(sheets):
            corner = (x + 0.06 * sheet, -height / 2 - 0.03 * sheet)
            axes.add_patch(Rectangle(corner, width, height, fc=color, ec="white", lw=1.2))
        high, middle = number % 2 == 0, x + width / 2 + 0.03 * (sheets - 1)
        edge = height / 2 if high else -height / 2 - 0.03 * (sheets - 1)
        line = {"arrowstyle": "-", "color": GREY, "lw": 0.8}
        axes.annotate(f"{name}\n{shape}", (middle, edge), (middle, 0.62 if high else -0.68),
                      ha="center", va="bottom" if high else "top", size=13,
                      arrowprops=line)  # fmt: skip
        x = ends[-1][1] + 0.42
        if number + 1 < len(BLOCKS):
            arrow = {"arrowstyle": "-|>", "color": GREY, "lw": 2, "mutation_scale": 16}
            axes.annotate("", (x - 0.04, 0), (x - 0.38, 0), arrowprops=arrow)
    for half, first, last in (("encoder", 1, 3), ("decoder", 5, 5)):
        left, right = ends[first][0], ends[last][1]
        axes.plot((left, right), (-1.2, -1.2), color=BLUE, lw=2)
        axes.text((left + right) / 2, -1.25, half, color=BLUE, ha="center", va="top", size=15)
    axes.set(xlim=(-0.35, x - 0.1), ylim=(-1.45, 1.0))
    axes.axis("off")


def losses(length, present, absent, image, drawn) -> None:
    """Both parts of the margin loss, and an image its reconstruction and their difference."""
    left, right = plt.figure(figsize=(WIDTH, 4.0)).subfigures(1, 2)
    axes = left.subplots()
    axes.plot(length, present, color=BLUE)
    axes.plot(length, absent, color=ORANGE)
    axes.text(0.22, 0.58, "digit\npresent", color=BLUE)
    axes.text(0.87, 0.5, "digit\nabsent", color=ORANGE, ha="right")
    for margin in (0.1, 0.9):
        axes.axvline(margin, color=GREY, ls="--", lw=1.2)
        axes.text(margin, 0.87, f"{margin}", color=GREY, ha="center")
    axes.set(xlabel="length of its capsule", ylabel="margin loss", xticks=(0, 0.5, 1))
    axes.set_ylim(0, 0.86)
    panels = right.subplots(2, 2)
    picture(panels[0, 0], image, "digit")
    picture(panels[0, 1], drawn, "reconstruction")
    picture(panels[1, 0], (image - drawn) ** 2, "squared difference", ORANGE)
    panels[1, 1].axis("off")
    total = f"sum\n{((image - drawn) ** 2).sum():.1f}"
    panels[1, 1].text(0.5, 0.5, total, ha="center", va="center", color=ORANGE, size=20)
