"""Affine transforms: which way, how far, and what affNIST's ranges mean."""

import pytest
import torch

from capsnet.data.batches import seeded_generator
from capsnet.data.transforms import affine, affnist_like, draw_affnist, free_way


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=seeded_generator("noise"), dtype=torch.uint8)


def dot(down: int, right: int, size: int = 29) -> torch.Tensor:
    """One image with a white pixel so far from its centre pixel."""
    images = torch.zeros(1, size, size)
    images[0, size // 2 + down, size // 2 + right] = 1
    return images


def centre_of_mass(images: torch.Tensor) -> list[float]:
    """(down, right) of the ink from the centre of the first image, in pixels."""
    height, width = images.shape[-2:]
    ink = images[0].double() / images[0].double().sum()
    down = (ink.sum(dim=1) * (torch.arange(height) - (height - 1) / 2)).sum()
    right = (ink.sum(dim=0) * (torch.arange(width) - (width - 1) / 2)).sum()
    return [round(down.item(), 2), round(right.item(), 2)]


def test_nothing_to_do_changes_nothing():
    images = noise(3, 28, 28)
    same = affine(images)
    assert torch.equal(same, images) and same.dtype == torch.uint8
    floats = images / 255
    torch.testing.assert_close(affine(floats), floats, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(28, 28), (20, 31)])
def test_whole_pixels_move_exactly_and_black_enters(shape):
    images = noise(2, *shape)
    moved = affine(images, translation=(3, -2))
    assert torch.equal(moved[:, 3:, :-2], images[:, :-3, 2:])
    assert not moved[:, :3].any() and not moved[:, :, -2:].any()


def test_rotation_is_anticlockwise():
    """A dot 8 px to the right of the centre is 8 px above it after 90 degrees, to the left after
    180; after 30 degrees 8 sin 30 = 4 above and 8 cos 30 = 6.93 to the right."""
    assert centre_of_mass(affine(dot(0, 8), rotation=90)) == [-8, 0]
    assert centre_of_mass(affine(dot(0, 8), rotation=180)) == [0, -8]
    assert centre_of_mass(affine(dot(0, 8), rotation=30)) == pytest.approx([-4, 6.93], abs=0.1)


def test_a_quarter_turn_is_exact():
    images = noise(2, 28, 28)
    assert torch.equal(affine(images, rotation=90), images.rot90(dims=(1, 2)))


def test_positive_shear_leans_to_the_right():
    """Half a pixel for each row: 6 rows above the centre move 3 px to the right, 6 below 3 to the
    left, the centre's own row stays."""
    assert centre_of_mass(affine(dot(-6, 0), shear=0.5)) == [-6, 3]
    assert centre_of_mass(affine(dot(6, 0), shear=0.5)) == [6, -3]
    assert centre_of_mass(affine(dot(0, 5), shear=0.5)) == [0, 5]


def test_scale_is_of_the_distance_from_the_centre():
    """Twice as high: 6 px below the centre become 12, 3 to the right stay; twice in each
    direction: four times the ink; half: a quarter of it."""
    assert centre_of_mass(affine(dot(6, 3), scale=(2.0, 1.0))) == [12, 3]
    assert centre_of_mass(affine(dot(6, 3), scale=(1.0, 2.0))) == [6, 6]
    square = torch.zeros(1, 28, 28)
    square[0, 8:20, 8:20] = 1
    for scale in (2.0, 0.5):
        share = affine(square, scale=scale).sum() / square.sum()
        assert share.item() == pytest.approx(scale**2, rel=1e-4)


def test_the_order_is_scale_shear_rotate_move():
    """A dot 4 above the centre: twice as high 8 above; sheared by 1/2, 4 to the right; a quarter
    turn takes (8 up, 4 right) to (4 up, 8 left); 1 down and 2 to the right of it: (3 up, 6
    left)."""
    moved = affine(dot(-4, 0), scale=(2.0, 1.0), shear=0.5, rotation=90, translation=(1, 2))
    assert centre_of_mass(moved) == [-3, -6]


def test_each_image_has_its_own_numbers():
    images = dot(0, 8).expand(3, -1, -1)
    together = affine(images, rotation=torch.tensor([0.0, 90.0, 33.0]), scale=torch.ones(3))
    for image, angle in zip(together, (0.0, 90.0, 33.0), strict=True):
        torch.testing.assert_close(image[None], affine(images[:1], rotation=angle))


def test_a_scale_of_zero_is_an_error():
    with pytest.raises(ValueError, match="scale 0, but an image is scaled by more than 0"):
        affine(dot(0, 0), scale=(1.0, 0.0))


def test_affnist_draws_fill_their_ranges_and_repeat():
    """Of 1,000 even draws the smallest and largest are within 1 % of the ends of the range."""
    first, again = (draw_affnist(1000, seeded_generator("draw")) for _ in range(2))
    for values, low, high in [
        (first.rotation, -20, 20),
        (first.shear, -0.2, 0.2),
        (first.scale[0], 0.8, 1.2),
        (first.scale[1], 0.8, 1.2),
    ]:
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
    assert torch.equal(first.rotation, again.rotation) and torch.equal(first.shear, again.shear)
    assert not torch.equal(*first.scale)  # drawn for each direction on its own


def test_free_way_by_hand():
    """Ink in rows 2 and 3 of 6: two rows before, two after; in none: nowhere to go."""
    inked = torch.tensor([[0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6]).bool()
    back, ahead = free_way(inked)
    assert back.tolist() == [2, 0, 0] and ahead.tolist() == [2, 5, 0]


def test_affnist_like_digits_go_everywhere_and_stay_on_the_canvas():
    """A square of 12 px, at most 12 * 1.2 (cos 20 + sin 20 + shear) < 22 wide, on a canvas of 40:
    its ink is what the scales make of it, none is cut, and places differ by up to 40 - 22 px."""
    images = torch.zeros(200, 40, 40)
    images[:, 14:26, 14:26] = 1
    made = affnist_like(images, seeded_generator("like"))
    vertical, horizontal = draw_affnist(200, seeded_generator("like")).scale
    torch.testing.assert_close(made.sum(dim=(1, 2)), 144 * vertical * horizontal, rtol=0.03, atol=0)
    ink = made > 0
    assert ink.any(dim=2)[:, :2].any() and ink.any(dim=2)[:, -2:].any()
    places = torch.tensor([centre_of_mass(image[None]) for image in made])
    assert (places.max(dim=0).values - places.min(dim=0).values > 18).all()
    near = affnist_like(images, seeded_generator("like"), max_translation=2.0)
    places = torch.tensor([centre_of_mass(image[None]) for image in near])
    assert 1.9 < places.abs().max() < 2.1
