"""Render the letters A to Z in ten fonts with noise, as a folder of pictures to train on.

    python docs/letters.py data/letters --unseen 2
    dvc exp run -S budget=quick -S data.dataset=folder -S data.folder=data/letters

Two of the fonts are then for the test only. The fonts come with matplotlib. Letters are white on
black, 40 to 64 px wide and high, rotated by up to 15 degrees, with normal noise of up to a quarter
of white.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic",
         "STIXGeneral", "STIXGeneralItalic", "cmr10", "cmss10", "cmtt10")  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to write, one sub-folder a letter")
    parser.add_argument("--letters", default=LETTERS, help="A to Z by default")
    parser.add_argument("--each", type=int, default=8, help="pictures of a letter in a font")
    parser.add_argument("--unseen", type=int, default=0, help="fonts for test/ only, the last ones")
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    for letter in arguments.letters:
        for place, font in enumerate(FONTS, start=arguments.unseen - len(FONTS)):
            split = ("train", "test")[place >= 0] if arguments.unseen else ""
            folder = arguments.folder / split / letter
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(arguments.each):
                render(letter, font, random).save(folder / f"{font}_{number}.png")


def render(letter: str, font: str, random: np.random.Generator) -> Image.Image:
    """One picture in mode L."""
    size = int(random.integers(40, 65))
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    drawn = Image.new("L", (size, size))
    place = (size / 2 + random.uniform(-2, 2), size / 2 + random.uniform(-2, 2))
    style = ImageFont.truetype(path, int(size * random.uniform(0.6, 0.8)))
    ImageDraw.Draw(drawn).text(place, letter, fill=255, font=style, anchor="mm")
    turned = drawn.rotate(random.uniform(-15, 15), Image.Resampling.BICUBIC)
    noise = random.normal(0, random.uniform(0, 64), (size, size))
    return Image.fromarray((np.asarray(turned) + noise).clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
