"""Pictures of digits as people make them become the input of a network."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from scipy.ndimage import center_of_mass

from capsnet.reading import handwriting
from capsnet.reading.handwriting import fit, read_handwriting


def strokes(size: int = 300, thickness: int = 30) -> Image.Image:
    """A five, white on black, on a square sheet that it does not fill."""
    image = Image.new("L", (size, size))
    corners = [(0.62, 0.2), (0.36, 0.2), (0.34, 0.45), (0.6, 0.5), (0.5, 0.75), (0.32, 0.72)]
    line = [(size * across, size * down) for across, down in corners]
    ImageDraw.Draw(image).line(line, fill=255, width=thickness * size // 300, joint="curve")
    return image


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def network_input(data: bytes, image_size: int = 28, box_size: int = 20) -> np.ndarray:
    return fit(read_handwriting(data), image_size=image_size, box_size=box_size)


FIVE = strokes()
DARK = ImageOps.invert(FIVE)
PAPER = Image.new("L", (900, 500), 255)
PAPER.paste(DARK, (480, 120))
BLACK = Image.new("L", (300, 300))
CLOCKWISE = Image.Exif()
CLOCKWISE[0x0112] = 6  # how to turn the picture
DARK_INK, LIGHT_INK = (Image.new("RGBA", (300, 300), ink) for ink in ("#00003c", "#ffffc8"))
DARK_INK.putalpha(FIVE)
LIGHT_INK.putalpha(FIVE)

VARIANTS = {
    "three times as large": encoded(strokes(900)),
    "a quarter of the size": encoded(strokes(75)),
    "larger than a camera's": encoded(strokes(4200)),
    "dark on light": encoded(DARK),
    "JPEG": encoded(DARK, "JPEG", quality=60),
    "red on black": encoded(Image.merge("RGB", [FIVE, BLACK, BLACK])),
    "palette": encoded(FIVE.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)),
    "one bit": encoded(FIVE.convert("1")),
    "16 bits": encoded(Image.fromarray(np.asarray(FIVE).astype(np.uint16) * 200 + 300)),
    "16 bits, dark on light": encoded(Image.fromarray(50_000 - np.asarray(FIVE) * np.uint16(150))),
    "dark on transparent": encoded(DARK_INK),
    "light on transparent": encoded(LIGHT_INK),
    "opaque with an alpha channel": encoded(DARK.convert("LA")),
    "elsewhere on larger paper": encoded(PAPER),
    "CMYK": encoded(DARK.convert("CMYK"), "JPEG", quality=90),
    "several pages": encoded(FIVE, "TIFF", save_all=True, append_images=[strokes(50)]),
    "turned by the camera": encoded(FIVE.transpose(Image.Transpose.ROTATE_90), exif=CLOCKWISE),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_input_depends_on_neither_format_nor_colour_nor_size(name):
    """Edges differ, the mean pixel by less than 0.02; a shift by a pixel gives over 0.05."""
    plain = network_input(encoded(FIVE))
    assert np.abs(network_input(VARIANTS[name]) - plain).mean() < 0.02
    assert np.abs(np.roll(plain, 1, axis=1) - plain).mean() > 0.05


@pytest.mark.parametrize(("image_size", "box_size"), [(28, 20), (36, 26), (40, 20)])
def test_box_and_centre_are_those_of_mnist(image_size, box_size):
    """For any shape of ink: the longer side of the box is `box_size`, no ink is lost, and the
    centre of mass is within half a pixel of the middle where there is room.
    """
    random = np.random.default_rng(image_size + box_size)
    margin, middle = handwriting.MARGIN, image_size / 2
    for _ in range(40):
        ink = random.random(random.integers(1, 120, 2)) ** random.integers(1, 30)
        ink[random.integers(ink.shape[0]), random.integers(ink.shape[1])] = 1
        scaled = handwriting.scale(ink, box_size)
        image = fit(ink, image_size=image_size, box_size=box_size)
        assert max(scaled.shape) == box_size and image.max() == 1 and image.dtype == np.float32
        inside = image[margin : image_size - margin, margin : image_size - margin]
        assert inside.sum() == pytest.approx(scaled.sum(), rel=1e-5)
        centres = zip(center_of_mass(image), center_of_mass(scaled), scaled.shape, strict=True)
        for centre, within, side in centres:
            has_room = margin <= middle - within <= image_size - side - margin
            assert abs(centre - middle) <= 0.5 + 1e-4 or not has_room


def test_a_picture_of_the_networks_size_stays_as_it_is():
    """It is not moved or scaled; only its brightest ink becomes 1."""
    made = np.rint(network_input(encoded(strokes(thickness=45))) * 255).astype(np.uint8)
    for image in (Image.fromarray(made), Image.fromarray(255 - made)):
        np.testing.assert_allclose(network_input(encoded(image)), made / 255, atol=0.07)


def test_noise_and_dust_do_not_move_the_digit():
    noisy = 210 - 0.6 * np.asarray(FIVE, dtype=float)
    noisy += np.random.default_rng(0).normal(0, 6, noisy.shape)
    noisy[5:9, 5:9] = 60
    data = encoded(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    assert np.abs(network_input(data) - network_input(encoded(FIVE))).mean() < 0.03


@pytest.mark.parametrize("thickness", [10, 60])
def test_a_digit_cut_out_tightly_keeps_its_ink(thickness):
    """Its strokes fill up to half of the border."""
    whole = ImageOps.invert(strokes(thickness=thickness))
    tight = whole.crop(ImageOps.invert(whole).getbbox())
    wanted = network_input(encoded(whole))
    np.testing.assert_allclose(network_input(encoded(tight)), wanted, atol=0.01)


REFUSED = {
    "text": (b"no picture", "Pillow knows"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC"),
    "half": (encoded(FIVE)[:300], "not a whole picture"),
    "one row": (encoded(Image.new("L", (50_000, 1))), "empty"),
    "wholly transparent": (encoded(Image.new("RGBA", (300, 300))), "empty"),
    "NaN": (encoded(Image.fromarray(np.full((50, 50), np.nan, np.float32)), "TIFF"), "empty"),
    "large": (encoded(Image.new("1", (12_000, 12_000))), "larger than 89 million pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_cannot_be_read_is_an_error_of_one_line(name):
    data, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"^the picture: .*{message}.*$"):
        network_input(data)
