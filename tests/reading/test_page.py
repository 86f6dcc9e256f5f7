"""Which mark on a page is taken for the digit."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from capsnet.reading.handwriting import fit
from capsnet.reading.page import choose_marks, find_ink

SIZE = 480


def page(*digits: tuple[int, int], bar: int = 0) -> np.ndarray:
    """Brightness [480, 480] of paper with fives, their corners at `digits` (down, across); their
    bars `bar` px away from the rest.
    """
    image = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    for down, across in digits:
        body = [(0, 0), (-3, 70), (75, 85), (50, 150), (-6, 145)]
        for line in (body, [(bar, -bar // 2), (85 + bar, -bar // 2)]):
            draw.line([(across + x, down + y) for x, y in line], fill=255, width=14, joint="curve")
    return 0.9 - 0.8 * np.asarray(image, np.float64) / 255


def network_input(grey: np.ndarray) -> np.ndarray:
    taken, _ = choose_marks(find_ink(grey), 1)
    return fit(taken, image_size=28, box_size=20)


def with_lines(grey: np.ndarray, *, spacing: int, columns: bool) -> np.ndarray:
    grey = grey.copy()
    for first in range(3):
        grey[20 + first :: spacing] = np.minimum(grey[20 + first :: spacing], 0.5)
        if columns:
            grey[:, 30 + first :: spacing] = np.minimum(grey[:, 30 + first :: spacing], 0.5)
    return grey


def on_desk(grey: np.ndarray, *, sides: int) -> np.ndarray:
    """A dark desk along the first of the left, right, upper and lower side."""
    grey = grey.copy()
    for part in (grey[:, :50], grey[:, -50:], grey[:50], grey[-50:])[:sides]:
        part[:] = 0.25
    return grey


FIVE = page((180, 190))
DOWN, ACROSS = np.mgrid[:SIZE, :SIZE]
SHADOW = np.where(DOWN + 0.6 * ACROSS < 380, 0.55, 1)
BAND = np.where(abs(DOWN - ACROSS) < 60, 0.6, 1)
RIGHT, BELOW = ACROSS - SIZE / 2, DOWN - SIZE / 2
TURNED = np.maximum(abs(0.9 * RIGHT - 0.44 * BELOW), abs(0.44 * RIGHT + 0.9 * BELOW)) < 205
WOOD = 0.3 + 0.12 * np.sin(DOWN / 9 + 3 * np.sin(ACROSS / 40))
SHEET = (abs(RIGHT + 5) < 110) & (abs(BELOW - 10) < 120)
NOTE = page((180, 190))
NOTE[20:40, 20:24] = 0.1
PAGES = {
    "ruled": with_lines(FIVE, spacing=60, columns=False),
    "grid": with_lines(FIVE, spacing=45, columns=True),
    "the edge of a shadow": FIVE * SHADOW,
    "a narrow shadow": FIVE * BAND,
    "a desk around the sheet": on_desk(FIVE, sides=4),
    "a desk on one side": on_desk(FIVE, sides=1),
    "a shadow on a sheet on a desk": on_desk(FIVE, sides=4) * SHADOW,
    "a turned sheet that reaches all sides": np.where(TURNED, FIVE, 0.25),
    "a small sheet on a wooden desk": np.where(SHEET, FIVE, WOOD),
    "a small mark": NOTE,
    "chalk on a board with a frame": on_desk(1 - FIVE, sides=4) + 0.2,
}


@pytest.mark.parametrize("name", PAGES)
def test_the_digit_is_found_on_the_page(name):
    """The mean pixel differs by less than 0.03 from that on plain paper; a shift gives 0.05."""
    assert np.abs(network_input(PAGES[name]) - network_input(FIVE)).mean() < 0.03


def test_parts_close_together_are_one_mark_and_several_marks_are_rejected():
    """A network for pairs takes two."""
    ink = find_ink(page((180, 190), bar=12))
    taken, why = choose_marks(ink, 1)
    assert why is None and taken.sum() == pytest.approx(ink.sum(), rel=0.01)
    ink = find_ink(page((150, 60), (150, 300)))
    assert "several marks" in choose_marks(ink, 1)[1] and choose_marks(ink, 2)[1] is None


def test_a_solid_shape_is_no_digit_and_an_empty_sheet_is_empty():
    shape = np.full((SIZE, SIZE), 0.9)
    shape[150:330, 160:310] = 0.1
    assert "no strokes" in choose_marks(find_ink(shape), 1)[1]
    with pytest.raises(ValueError, match="empty"):
        find_ink(on_desk(page(), sides=1))


@pytest.mark.parametrize("size", [16, 20])
def test_a_small_picture_is_left_alone_only_if_its_digit_lies_as_those_of_mnist(size):
    image = Image.fromarray((255 * network_input(FIVE)).astype(np.uint8))
    ink = np.asarray(image) / 255
    np.testing.assert_array_equal(fit(ink, image_size=28, box_size=20), ink.astype(np.float32))
    moved = Image.new("L", (28, 28))
    moved.paste(image.crop((4, 4, 24, 24)).resize((size, size)), (1, 2))
    found = fit(np.asarray(moved) / 255, image_size=28, box_size=20)
    assert np.abs(found - ink).mean() < 0.08 < np.abs(np.asarray(moved) / 255 - ink).mean()
