"""Strokes, boxes and discs of known thickness, slant, size and position."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from capsnet.studies.perturbation.morphometry import Shapes, measure, shape_overlap

SIZE = 28
DOWN, RIGHT = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2  # px from the middle of the image


def box(width: int, height: int, left: int = 10, top: int = 4) -> np.ndarray:
    image = np.zeros((SIZE, SIZE))
    image[top : top + height, left : left + width] = 1
    return image


def leaning(width: float, degrees: float) -> np.ndarray:
    """A stroke 20 px high and `width` px along each row, its edges grey by the share covered."""
    distance = abs(RIGHT + DOWN * np.tan(np.radians(degrees)))
    return np.clip(width / 2 + 0.5 - distance, 0, 1) * (abs(DOWN) < 10)


def alone(image: np.ndarray) -> Shapes:
    return Shapes(*(values.item() for values in measure(image[None])))


@pytest.mark.parametrize("width", [1, 2, 7])
def test_a_box_has_its_own_size_and_place(width):
    """A box of width x 20 with its left edge at column 10 and its top at row 2: its middle is at
    column 10 + width / 2 and row 12 of 28, 2 above the middle of the height. The skeleton's ends
    lie nearer to the edge than half a width, so the thickness falls short, by less than 4 %; the
    contour of a line of one pixel is at half of its brightness, so exactly one pixel apart.
    """
    shapes = alone(box(width, 20, top=2))
    assert shapes.thickness == pytest.approx(width, rel=0.04 if width > 1 else 0.08)
    assert shapes.width == pytest.approx(width, rel=1e-4)
    assert shapes.height == pytest.approx(20, rel=1e-4)
    assert shapes.area == 20 * width
    place = shapes.slant, shapes.horizontal_centre, shapes.vertical_centre
    assert place == pytest.approx((0, 10 + width / 2 - SIZE / 2, 2), abs=1e-4)
    assert shapes.sharpness == pytest.approx(1, abs=0.02)  # only its one corner is steeper


@pytest.mark.parametrize("degrees", [-30, 10, 40])
def test_a_leaning_stroke(degrees):
    """Sheared by tan(angle), its thickness across the stroke is 4 cos(angle); along a row it stays
    4 px wide and 80 px^2 large. To the right is positive. Without its slant it is 4 px wide, but
    for the grey edges that rows share between columns, at most a pixel on either side.
    """
    shapes = alone(leaning(4, degrees))
    assert shapes.slant == pytest.approx(degrees, abs=0.1)
    assert shapes.thickness == pytest.approx(4 * np.cos(np.radians(degrees)), rel=0.09)
    assert 4 <= shapes.width < 6
    assert shapes.height == pytest.approx(20, abs=0.05)
    assert shapes.area == pytest.approx(80, rel=0.01)


def test_blur_takes_sharpness_and_half_the_brightness_takes_nothing():
    image = gaussian_filter(box(6, 16), 0.5)
    faint, blurred = alone(image / 2), alone(gaussian_filter(image, 1.5))
    np.testing.assert_allclose(faint, alone(image), atol=1e-4)
    assert blurred.sharpness < 0.6 * faint.sharpness
    assert blurred.thickness == pytest.approx(faint.thickness, rel=0.15)


def test_only_ink_has_a_shape():
    """A single pixel and noise have all measures; black and nearly black images have none."""
    random = np.random.default_rng(0).random((28, 28))
    shapes = measure(np.stack([box(1, 1), box(12, 1), np.ones((28, 28)), random]))
    assert np.isfinite(np.stack(shapes)).all() and shapes.slant[:2].tolist() == [0, 0]
    assert np.isnan(measure(np.stack([0 * random, np.full((28, 28), 0.05)]))).all()
    assert all(len(values) == 0 for values in measure(np.zeros((0, 28, 28))))


def test_an_image_alone_and_in_a_batch_measure_the_same():
    """Whatever its neighbours on the mosaic, and wherever a block of 512 images ends."""
    random = np.random.default_rng(1)
    shapes = [(random.uniform(1.5, 6), random.uniform(-30, 30)) for _ in range(520)]
    images = np.stack([leaning(*shape) for shape in shapes]).astype(np.float32)
    images[3] = 0
    together = measure(images)
    for number in (0, 3, 511, 512, 519):
        row = [values[number] for values in together]
        np.testing.assert_allclose(row, alone(images[number]), rtol=1e-5, atol=1e-5)


def test_a_moved_shape_is_the_same_shape():
    """Moved by whole pixels all its ink is shared; of two boxes, 4 and 8 px wide, a half; of a
    black image nothing can be said.
    """
    wide, narrow = box(8, 8, 3, 4), box(4, 8, 15, 10)
    moved = np.roll(wide, (9, 5), axis=(0, 1))
    found = shape_overlap(np.stack([wide] * 3), np.stack([moved, narrow, 0 * wide]))
    assert found[0] == pytest.approx(100) and found[1] == pytest.approx(50, abs=3)
    assert np.isnan(found[2])
