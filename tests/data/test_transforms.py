"""Affine transforms: directions, amounts, order, and affNIST's ranges."""

import pytest
import torch

from capsnet.data.batches import seeded_generator
from capsnet.data.transforms import affine, affnist_like, distort, draw_affnist, draw_distortions


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=seeded_generator("noise"), dtype=torch.uint8)


def dot(down: int, right: int) -> torch.Tensor:
    """One image with a white pixel at this distance from its centre pixel."""
    images = torch.zeros(1, 29, 29)
    images[0, 14 + down, 14 + right] = 1
    return images


def centre_of_mass(images: torch.Tensor) -> list[float]:
    """(down, right) from the centre of the first image, in pixels."""
    ink = images[0].double() / images[0].double().sum()
    places = torch.arange(len(ink)) - (len(ink) - 1) / 2
    return [round((ink.sum(dim=dim) * places).sum().item(), 2) for dim in (1, 0)]


def test_whole_pixels_and_quarter_turns_are_exact_and_black_enters():
    images = noise(2, 28, 28)
    assert torch.equal(affine(images), images)
    assert torch.equal(affine(images, rotation=90), images.rot90(dims=(1, 2)))
    moved = affine(images, translation=(3, -2))
    assert torch.equal(moved[:, 3:, :-2], images[:, :-3, 2:])
    assert not moved[:, :3].any() and not moved[:, :, -2:].any()


def test_rotation_is_anticlockwise_and_each_image_has_its_own():
    """A dot 8 px to the right of the centre is 8 sin 30 = 4 px above and 8 cos 30 = 6.93 px to the
    right after 30 degrees.
    """
    turned = affine(dot(0, 8).expand(2, -1, -1), rotation=torch.tensor([90.0, 30.0]))
    assert centre_of_mass(turned[:1]) == [-8, 0]
    assert centre_of_mass(turned[1:]) == pytest.approx([-4, 6.93], abs=0.1)


def test_the_order_is_scale_shear_rotate_translate():
    """A dot 4 above the centre: twice as high 8 above; sheared by 1/2, 4 to the right; a quarter
    turn takes (8 up, 4 right) to (4 up, 8 left); 1 down and 2 right of it is (3 up, 6 left). One
    scale is for both axes.
    """
    moved = affine(dot(-4, 0), scale=(2.0, 1.0), shear=0.5, rotation=90, translation=(1, 2))
    assert centre_of_mass(moved) == [-3, -6]
    assert centre_of_mass(affine(dot(6, 3), scale=2.0)) == [12, 6]


def test_affnist_like_digits_go_everywhere_and_stay_on_the_canvas():
    """A rectangle of 6x20 px, at most 1.2 (20 cos 20 + 6 sin 20) + 2 < 28 wide, on a canvas of 40:
    no ink is lost, and positions differ by up to 40 - 28 px. The extremes of 1,000 uniform draws
    are within 1 % of the ends of their range.
    """
    drawn = draw_affnist(1000, seeded_generator("draw"))
    vertical, _ = drawn["scale"]
    for values in (drawn["rotation"] / 20, drawn["shear"] / 0.2, 5 * (vertical - 1)):
        assert -1.0001 < values.min() < -0.98 and 0.98 < values.max() < 1.0001
    images = torch.zeros(200, 40, 40)
    images[:, 17:23, 10:30] = 1
    made = affnist_like(images, seeded_generator("like"))
    vertical, horizontal = draw_affnist(200, seeded_generator("like"))["scale"]
    torch.testing.assert_close(made.sum(dim=(1, 2)), 120 * vertical * horizontal, rtol=0.03, atol=0)
    places = torch.tensor([centre_of_mass(image[None]) for image in made])
    assert (places.max(dim=0).values - places.min(dim=0).values > 12).all()
    near = affnist_like(images, seeded_generator("like"), max_translation=2.0)
    assert 1.9 < max(abs(each) for image in near for each in centre_of_mass(image[None])) < 2.1


def test_distortions_by_hand():
    """Thousandths: nothing is nothing; 10,000 is a rotation by 10 degrees; control points that are
    all read 1 px further right and 2 px further down move the image left by 1 and up by 2.
    """
    images, numbers = noise(1, 28, 28), torch.zeros(1, 4 + 18, dtype=torch.int64)
    assert torch.equal(distort(images, numbers), images)
    numbers[0, 0] = 10_000
    assert torch.equal(distort(images, numbers), affine(images, rotation=10))
    numbers[0, 0], numbers[0, 4:13], numbers[0, 13:] = 0, 1000, 2000
    assert torch.equal(distort(images, numbers)[:, :-2, :-1], images[:, 2:, 1:])
    drawn = draw_distortions((50, 20), seeded_generator("distortions")).flatten(0, 1)
    most = torch.tensor([10_000, 100, 100, 100] + [1500] * 18)
    assert (drawn.abs() <= most).all() and (drawn.abs().amax(dim=0) > 0.98 * most).all()
