"""Shapes of the tutorial: parts of a face, strokes of a digit, the network, the two losses."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from drawing import BLUE, GREY, ORANGE, WIDTH, figure, picture
from matplotlib.patches import Rectangle
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


def network(blocks: Sequence[tuple[str, str, float, float, int, str]]) -> None:
    """Blocks from left to right: name, shape, height, width (relative), sheets, colour."""
    [[axes]] = figure(1, 1, 3.7)
    x = 0.0
    for number, (name, shape, height, width, sheets, color) in enumerate(blocks):
        for sheet in range(sheets):
            corner = (x + 0.06 * sheet, -height / 2 - 0.03 * sheet)
            axes.add_patch(Rectangle(corner, width, height, fc=color, ec="white", lw=1.2))
        high, middle = number % 2 == 0, x + width / 2 + 0.03 * (sheets - 1)
        edge = height / 2 if high else -height / 2 - 0.03 * (sheets - 1)
        line = {"arrowstyle": "-", "color": GREY, "lw": 0.8}
        axes.annotate(f"{name}\n{shape}", (middle, edge), (middle, 0.62 if high else -0.68),
                      ha="center", va="bottom" if high else "top", size=13,
                      arrowprops=line)  # fmt: skip
        x += width + 0.06 * (sheets - 1) + 0.42
        if number + 1 < len(blocks):
            arrow = {"arrowstyle": "-|>", "color": GREY, "lw": 2, "mutation_scale": 16}
            axes.annotate("", (x - 0.04, 0), (x - 0.38, 0), arrowprops=arrow)
    axes.set(xlim=(-0.35, x - 0.1), ylim=(-1.1, 1.0))
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
