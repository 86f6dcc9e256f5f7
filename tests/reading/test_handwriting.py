"""Pictures of digits as people make them become what the network was trained on."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from PIL import Image, ImageDraw

from capsnet.reading import handwriting
from capsnet.reading.handwriting import find_ink, fit, read_handwriting


def strokes(size: int = 300, thickness: int = 30) -> Image.Image:
    """A five, white on black, somewhere on a square sheet that it does not fill."""
    image = Image.new("L", (size, size))
    corners = [(0.62, 0.2), (0.36, 0.2), (0.34, 0.45), (0.55, 0.45), (0.6, 0.6), (0.5, 0.75),
               (0.32, 0.72)]  # fmt: skip
    line = [(size * across, size * down) for across, down in corners]
    ImageDraw.Draw(image).line(line, fill=255, width=thickness * size // 300, joint="curve")
    return image


def inverted(image: Image.Image) -> Image.Image:
    return Image.eval(image, lambda level: 255 - level)


def with_alpha(color: tuple[int, ...]) -> Image.Image:
    """Strokes of one colour on nothing; what is transparent has the same colour."""
    image = Image.new("RGBA", (300, 300), color)
    image.putalpha(strokes())
    return image


def on_larger_paper(image: Image.Image, paper: int) -> Image.Image:
    sheet = Image.new("L", (900, 500), paper)
    sheet.paste(image, (480, 120))
    return sheet


def sixteen_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 200 + 300)


def lying() -> bytes:
    """A camera held upright writes a lying picture and says so (EXIF 6: turn it clockwise)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(strokes().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def network_input(data: bytes | Path, image_size: int = 28, box_size: int = 20) -> np.ndarray:
    return fit(read_handwriting(data), image_size=image_size, box_size=box_size)


VARIANTS = {
    "same again": encoded(strokes()),
    "three times as large": encoded(strokes(900)),
    "a quarter of the size": encoded(strokes(75)),
    "larger than a camera's": encoded(strokes(4200)),
    "dark on light": encoded(inverted(strokes())),
    "JPEG": encoded(inverted(strokes()), "JPEG", quality=60),
    "red on black": encoded(Image.merge("RGB", [strokes()] + [Image.new("L", (300, 300))] * 2)),
    "palette": encoded(strokes().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)),
    "one bit": encoded(strokes().convert("1")),
    "16 bits": encoded(sixteen_bits(strokes())),
    "16 bits, dark on light": encoded(sixteen_bits(inverted(strokes()))),
    "dark on transparent": encoded(with_alpha((0, 0, 60))),
    "light on transparent": encoded(with_alpha((255, 255, 200))),
    "opaque with an alpha channel": encoded(inverted(strokes()).convert("LA")),
    "elsewhere on larger paper": encoded(on_larger_paper(inverted(strokes()), 255)),
    "CMYK": encoded(inverted(strokes()).convert("CMYK"), "JPEG", quality=90),
    "several pages": encoded(strokes(), "TIFF", save_all=True, append_images=[strokes(50)]),
    "turned by the camera": lying(),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_digit_however_it_was_made(name):
    """Edges differ, the mean pixel by less than 0.02; a shift by a pixel would be over 0.05."""
    plain = network_input(encoded(strokes()))
    assert np.abs(network_input(VARIANTS[name]) - plain).mean() < 0.02
    assert np.abs(np.roll(plain, 1, axis=1) - plain).mean() > 0.05


def test_box_and_centre_are_those_of_mnist():
    """The longer side of the ink is 20 px, the centre of mass within half a pixel of (14, 14)."""
    image = network_input(encoded(strokes()))
    assert image.shape == (28, 28) and image.dtype == np.float32
    assert image.min() == 0 and image.max() == 1
    rows, columns = np.nonzero(image > handwriting.FAINT)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    centre = [(image.sum(axis=1 - axis) * np.arange(28)).sum() / image.sum() for axis in (0, 1)]
    assert np.abs(np.array(centre) - 14).max() <= 0.5


def test_box_of_another_size_on_another_canvas():
    image = network_input(encoded(strokes()), image_size=36, box_size=26)
    rows, _ = np.nonzero(image > handwriting.FAINT)
    assert image.shape == (36, 36)
    assert np.ptp(rows) + 1 == 26


def test_picture_made_for_the_network_stays_as_it_is():
    """What is given as 28x28 is not moved or scaled; only its brightest ink becomes 1."""
    made = np.rint(network_input(encoded(strokes(thickness=45))) * 255).astype(np.uint8)
    back = network_input(encoded(Image.fromarray(made)))
    np.testing.assert_allclose(back, made / 255, atol=0.07)
    back = network_input(encoded(inverted(Image.fromarray(made))))
    np.testing.assert_allclose(back, made / 255, atol=0.07)


def test_digit_of_mnist_comes_back_from_its_enlargement():
    """Ten times as large and back: no pixel moves, edges are a little softer."""
    made = np.rint(network_input(encoded(strokes(thickness=45))) * 255).astype(np.uint8)
    large = Image.fromarray(made).resize((280, 280), Image.Resampling.BICUBIC)
    assert np.abs(network_input(encoded(inverted(large))) - made / 255).mean() < 0.03


def test_noise_and_dust_do_not_move_the_digit():
    plain = network_input(encoded(strokes()))
    noisy = 210 - 0.6 * np.asarray(strokes(), dtype=float)
    noisy += np.random.default_rng(0).normal(0, 6, noisy.shape)
    noisy[5:9, 5:9] = 60
    data = encoded(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    assert np.abs(network_input(data) - plain).mean() < 0.03


def test_a_sheet_of_paper_without_ink_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        find_ink(np.full((50, 50), 0.8) + np.linspace(0, 0.01, 50))


@pytest.mark.parametrize(("image_size", "box_size"), [(28, 20), (36, 20), (36, 26), (40, 20)])
def test_the_foot_of_a_seven_stays_on_the_canvas(image_size, box_size):
    """Its mass lies high: with that in the middle, a box of 26 px ends in the last of 36 rows."""
    seven = Image.new("L", (300, 300), 255)
    corners = [(60, 60), (240, 60), (150, 260)]
    ImageDraw.Draw(seven).line(corners, fill=0, width=12, joint="curve")
    image = network_input(encoded(seven), image_size, box_size)
    rows, _ = np.nonzero(image > handwriting.FAINT)
    assert np.ptp(rows) + 1 == box_size and rows.max() < image_size - handwriting.MARGIN


@pytest.mark.parametrize(("image_size", "box_size"), [(28, 20), (36, 22), (36, 26), (40, 20)])
def test_no_ink_is_lost_and_it_is_centred_where_there_is_room(image_size, box_size):
    """Whatever shape the ink has, down to a dot and a line of one pixel."""
    random = np.random.default_rng(image_size + box_size)
    margin, middle = handwriting.MARGIN, image_size / 2
    for _ in range(60):
        ink = random.random(random.integers(1, 120, 2)) ** random.integers(1, 30)
        ink[random.integers(ink.shape[0]), random.integers(ink.shape[1])] = 1
        scaled = handwriting.scale(ink, box_size)
        image = fit(ink, image_size=image_size, box_size=box_size)
        assert max(scaled.shape) == box_size and image.max() == 1
        assert image.sum() == pytest.approx(scaled.sum(), rel=1e-5)
        inside = image[margin : image_size - margin, margin : image_size - margin]
        assert inside.sum() == pytest.approx(image.sum(), rel=1e-5)
        for axis, side in enumerate(scaled.shape):
            profile = image.sum(axis=1 - axis)
            away = (profile * np.arange(image_size)).sum() / profile.sum() - middle
            at = (scaled.sum(axis=1 - axis) * np.arange(side)).sum() / scaled.sum()
            has_room = margin <= middle - at <= image_size - side - margin
            assert abs(away) <= 0.5 + 1e-4 or not has_room


@pytest.mark.parametrize("thickness", [10, 40, 60])
def test_a_digit_cut_out_tightly_keeps_its_ink(thickness):
    """Its strokes fill up to half of the border."""
    whole = inverted(strokes(thickness=thickness))
    tight = whole.crop(inverted(whole).getbbox())
    np.testing.assert_allclose(
        network_input(encoded(tight)), network_input(encoded(whole)), atol=0.01
    )


@pytest.mark.parametrize("density", [0.1, 0.5, None])
def test_noise_is_ink_and_no_error(density):
    noise = np.random.default_rng(0).random((60, 60))
    ink = find_ink(noise if density is None else (noise < density).astype(float))
    assert ink.sum() > 50


def header_only(width: int, height: int) -> bytes:
    """A PNG that says how large it is and then ends: a few bytes that would unfold to gigabytes."""
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def animated() -> bytes:
    frames = [strokes(), Image.new("L", (300, 300))]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


ODD_PICTURES = {
    "nothing": b"",
    "text": b"no picture",
    "web page": b"<html>",
    "one pixel": encoded(Image.new("L", (1, 1))),
    "one row": encoded(Image.new("L", (50_000, 1))),
    "bomb": header_only(20_000, 20_000),
    "bomb below the limit of Pillow": header_only(12_000, 12_000),
    "real bomb": encoded(Image.new("1", (20_000, 20_000))),
    "animated": animated(),
    "half": encoded(strokes())[:300],
    "16 bits": encoded(sixteen_bits(strokes())),
    "CMYK": encoded(strokes().convert("CMYK"), "TIFF"),
    "transparent": encoded(with_alpha((0, 0, 0, 255))),
    "wholly transparent": encoded(Image.new("RGBA", (300, 300))),
    "palette": encoded(strokes().convert("P")),
    "not numbers": encoded(Image.fromarray(np.full((50, 50), np.nan, np.float32)), "TIFF"),
    "some not numbers": encoded(
        Image.fromarray(np.where(np.asarray(strokes()) > 9, np.inf, np.float32(0))), "TIFF"
    ),
}
READABLE = {"animated", "16 bits", "CMYK", "transparent", "palette"}


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_an_odd_picture_is_read_or_refused_in_one_line(name):
    try:
        found = network_input(ODD_PICTURES[name])
    except ValueError as error:
        assert name not in READABLE and "\n" not in str(error) and len(str(error)) < 200
        assert ("80 million pixels" in str(error)) == ("bomb" in name)
    else:
        assert name in READABLE
        assert np.isfinite(found).all() and found.min() >= 0 and 0.5 < found.max() <= 1


@given(data=strategies.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_picture_is_read_or_refused_in_one_line(data):
    whole = ODD_PICTURES[data.draw(strategies.sampled_from(sorted(READABLE)))]
    damaged = bytearray(whole)
    for place in data.draw(strategies.lists(strategies.integers(0, min(200, len(whole) - 1)))):
        damaged[place] ^= data.draw(strategies.integers(1, 255))
    try:
        found = network_input(bytes(damaged))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(found).all()
