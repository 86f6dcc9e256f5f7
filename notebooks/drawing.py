"""The figures of the tutorial. Colours are those of `capsnet.plots.canvas`.

Blue: capsule network, or the right class. Green: CNN. Orange: wrong. Light blue and amber: the
first and the second of two overlapping digits.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from torch import Tensor

from capsnet.plots.canvas import (
    BLUE,
    FIRST_DIGIT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SECOND_DIGIT,
    STYLE,
    overlay,
)

WIDTH = 8  # inches
LARGE = {"figure.dpi": 100, "font.size": 14, "axes.titlesize": 15, "lines.linewidth": 2.5,
         "lines.markersize": 8, "figure.constrained_layout.use": True,
         "figure.constrained_layout.h_pad": 0.1}  # fmt: skip


def use_style() -> None:
    plt.rcParams.update(STYLE | LARGE)


def figure(rows: int, columns: int, height: float, **options: object) -> np.ndarray:
    """The axes [rows, columns] of a figure of the common width."""
    return plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, **options)[1]


def picture(axes: Axes, image: Tensor, title: str = "", color: str = INK) -> None:
    """A grey image [h, w], or a coloured one [h, w, 3], without ticks."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, loc="center", color=color)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def face_and_jumble(images, pooled, votes, names: Sequence[str]) -> None:
    """A row for each picture: itself, what pooling keeps of it, the votes [part, 2] of parts."""
    axes = figure(2, 3, 5.6)
    titles = ("the picture", "largest response", "votes for the centre")
    for row, (image, kept, voted) in enumerate(zip(images, pooled, votes, strict=True)):
        left, middle, right = axes[row]
        picture(left, image)
        middle.barh(names, kept, color=GREEN)
        middle.invert_yaxis()
        middle.spines[:].set_visible(False)
        middle.tick_params(length=0, labelcolor=INK)
        middle.set_xticks([])
        picture(right, 0.35 * image)
        right.plot(*voted.T.flip(0), "o", color=BLUE, ms=11, mec="white")
        right.set(xlim=(-5, 53), ylim=(53, -5), facecolor="black")
        middle.set_box_aspect(1)
        for axis, title in zip(axes[row], titles, strict=True):
            axis.set_title(title if row == 0 else "", loc="center")


def opinions(images, titles: Sequence[str], groups: Mapping[str, Tensor], drawn) -> None:
    """Images in columns, below each what each network answers, scores [n, 10] in [0, 1], and last
    what the capsules draw.
    """
    axes = figure(2 + len(groups), len(images), 4.2 + 1.5 * len(groups))
    for column, (image, title) in enumerate(zip(images, titles, strict=True)):
        picture(axes[0, column], image, title)
        picture(axes[-1, column], drawn[column])
        for axis, (name, scores) in zip(axes[1:-1, column], groups.items(), strict=True):
            axis.bar(range(10), scores[column], color=GREEN if "CNN" in name else BLUE)
            axis.set(ylim=(0, 1.05), yticks=(0, 0.5, 1), xticks=range(10))
            axis.tick_params(labelsize=12)
    for axis, name in zip(axes[:, 0], ("picture", *groups, "capsules:\ndrawn"), strict=True):
        axis.set_ylabel(name)


def arrows(axes: Axes, ends: Tensor, color, **options: object) -> None:
    """Arrows from the origin to `ends` [n, 2]."""
    zero = np.zeros(len(ends))
    scale = {"angles": "xy", "scale_units": "xy", "scale": 1}
    axes.quiver(zero, zero, *np.asarray(ends).T, color=color, **scale, **options)


def plane(axes: Axes, limit: float) -> None:
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
    axes.axhline(0, color=PALE, lw=1, zorder=0)
    axes.axvline(0, color=PALE, lw=1, zorder=0)
    axes.spines[:].set_visible(False)


def presence_and_pose(share, three, seven, slant, angle, images) -> None:
    """Lengths while a 7 becomes a 3, and the turn of the capsule of a 3 that leans."""
    axes = figure(2, 2, 5.2, height_ratios=(1, 2.6))
    for axis, part in zip(axes[0], images, strict=True):
        picture(axis, torch.cat(list(part), dim=1))
    axes[1, 0].plot(100 * share, three, color=BLUE)
    axes[1, 0].plot(100 * share, seven, color=PURPLE)
    axes[1, 0].text(100, 1.05, "capsule of 3", color=BLUE, ha="right")
    axes[1, 0].text(0, 1.05, "capsule of 7", color=PURPLE)
    axes[1, 0].set(xlabel="share of the 3 (%)", ylabel="length", ylim=(0, 1.2))
    axes[1, 0].set_title("presence: the length")
    axes[1, 1].plot(slant, angle, color=BLUE)
    axes[1, 1].set(xlabel="slant of the 3", ylabel="turn of its capsule (°)", ylim=(0, None))
    axes[1, 1].set_title("pose: the direction")


def vote_planes(panels: Sequence[tuple[str, Tensor, Tensor, str]]) -> None:
    """Votes [i, 2] and their capsule [2] in one plane each: title, votes, capsule, colour."""
    [axes] = figure(1, len(panels), 3.9)
    limit = 1.1 * max(votes.abs().max() for _, votes, _, _ in panels)
    for axis, (title, votes, capsule, color) in zip(axes, panels, strict=True):
        arrows(axis, votes, to_rgba(color, 0.45), width=0.006)
        axis.plot(*votes.T, "o", color=color, ms=7)
        arrows(axis, capsule[None], INK, width=0.018, zorder=3)
        plane(axis, limit)
        axis.set(xlim=(-0.4 * limit, limit), ylim=(-0.65 * limit, 0.65 * limit))
        axis.set_title(title, color=color, loc="center")
    axes[0].text(0.98 * limit, -0.6 * limit, "black: the class capsule", ha="right")


def routing_steps(votes, couplings, capsules, wholes: Sequence[str], own: Sequence[int]) -> None:
    """Votes [i, j, 2] of the parts, a row a whole and a column an iteration. The width of an arrow
    is its coupling [r, i, j]; `own` is the whole that each part belongs to.
    """
    rounds = len(couplings)
    axes = figure(len(wholes), rounds, 5.9)
    for j, whole in enumerate(wholes):
        for r in range(rounds):
            axis = axes[j, r]
            for i, share in enumerate(couplings[r, :, j].tolist()):
                color = BLUE if own[i] == j else ORANGE
                arrows(axis, votes[i, j][None], to_rgba(color, 0.15 + 0.85 * share),
                       width=0.004 + 0.02 * share)  # fmt: skip
            arrows(axis, capsules[r, j][None], INK, width=0.03, zorder=3)
            plane(axis, 1.2)
            axis.set_title(f"iteration {r + 1}" if j == 0 else "", loc="center")
            axis.text(0, -1.19, f"length {capsules[r, j].norm():.2f}", ha="center")
            if r == 0:
                axis.set_ylabel(f"votes for\nthe {whole}")


def curves(panels: Sequence[tuple[str, str, str, Mapping[str, tuple]]], height: float = 3.8):
    """Panels side by side: title, x label, y label, and by name (x, y, colour) or with a band."""
    [axes] = figure(1, len(panels), height)
    for axis, (title, x_label, y_label, lines) in zip(axes, panels, strict=True):
        for name, (x, y, color, *band) in lines.items():
            axis.plot(x, y, color=color, label=name, marker="o" if len(x) < 20 else None)
            if band:
                axis.fill_between(x, *band, color=color, alpha=0.18, lw=0)
        axis.set(xlabel=x_label, ylabel=y_label)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y")
        if len(lines) > 1:
            axis.legend()


def gallery(rows: Mapping[str, Sequence], titles: Sequence[str], colors: Sequence[str]) -> None:
    """Rows of images under titles, each row with its name on the left."""
    count = len(titles)
    axes = figure(len(rows), count, 0.45 + WIDTH / (count + 1) * len(rows))
    for row, (name, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            title = titles[column] if row == 0 else ""
            picture(axes[row, column], image, title, colors[column])
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")


def grid(images: Tensor, rows: Sequence[str], columns: Sequence[str], x_label: str) -> None:
    """Images [r, c, h, w] as one sheet with names at the rows and columns."""
    count, across, height, width = images.shape
    padded = F.pad(images, (1, 1, 1, 1), value=0.35)
    sheet = padded.permute(0, 2, 1, 3).reshape(count * (height + 2), across * (width + 2))
    [[axes]] = figure(1, 1, WIDTH * count / across + 0.7)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks((np.arange(across) + 0.5) * (width + 2), columns)
    axes.set_yticks((np.arange(count) + 0.5) * (height + 2), rows)
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_xlabel(x_label)
    axes.spines[:].set_visible(False)


def watch_routing(image, sources, by_place, drawn, lengths, labels: Sequence[int]) -> None:
    """A column an iteration: where the votes [r, row, column, 2] come from (places are 4 pixels
    apart), both reconstructions [r, 2, h, w] and the lengths [r, j] of all capsules.
    """
    rounds, size = len(by_place), len(image)
    where = by_place.movedim(3, 1) / by_place.amax(dim=(1, 2))[..., None, None]
    where = F.pad(where, [(size // 4 - where.shape[3]) // 2] * 4)
    maps = F.interpolate(where, size, mode="bicubic").clamp(0, 1).numpy()
    axes = figure(3, rounds + 1, 7.4)
    picture(axes[0, 0], image, "the image")
    picture(axes[1, 0], overlay(sources.numpy()), "the truth")
    axes[2, 0].axis("off")
    own = dict(zip(labels, (FIRST_DIGIT, SECOND_DIGIT), strict=True))
    for r in range(rounds):
        picture(axes[0, r + 1], (overlay(maps[r]) + 0.3 * image[..., None].numpy()).clip(0, 1))
        axes[0, r + 1].set_title(f"iteration {r + 1}", loc="center")
        picture(axes[1, r + 1], overlay(drawn[r].numpy()))
        colors = [own.get(j, PALE) for j in range(10)]
        axes[2, r + 1].bar(range(10), lengths[r], color=colors, edgecolor=GREY, lw=0.6)
        axes[2, r + 1].set(ylim=(0, 1), xticks=range(10), yticks=(0, 0.5, 1))
        axes[2, r + 1].tick_params(labelsize=11)
    for row, word in enumerate(("votes", "reconstruction", "lengths")):
        axes[row, 1].set_ylabel(word)


def differences(names: Sequence[str], points: Sequence[tuple[float, float, float]], colors) -> None:
    """Differences in points with their intervals: (value, low, high)."""
    [[axes]] = figure(1, 1, 0.62 * len(names) + 1.5)
    for row, ((value, low, high), color) in enumerate(zip(points, colors, strict=True)):
        axes.plot((low, high), (row, row), color=color, lw=3)
        axes.plot(value, row, "o", color=color, ms=10)
    axes.axvline(0, color=INK, lw=1.2)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("error against three iterations\n(points, 95 % interval; left is better)")
