"""Pictures of digits as people make them become what the network was trained on; the program."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from capsnet import checkpoint, predict
from capsnet.nn.baseline import BaselineCNN
from capsnet.nn.capsnet import CapsNet, Prediction
from capsnet.reading import handwriting, recognition
from capsnet.reading.handwriting import find_ink, fit, read_handwriting
from capsnet.studies import calibration

TINY = {"conv_channels": 4, "primary_types": 2, "digit_dim": 4, "decoder_sizes": (8,)}
RED = (255, 40, 40)


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


def save(path: Path, *, network: str = "capsnet", image_size: int = 28, **sizes) -> Path:
    torch.manual_seed(0)
    arguments = {"image_size": image_size, **(TINY if network == "capsnet" else {}), **sizes}
    model = {"capsnet": CapsNet, "baseline": BaselineCNN}[network](**arguments)
    checkpoint.save(model, path, network=network, arguments=arguments)
    return path


def call(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
    code = predict.main()
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "five.png"
    path.write_bytes(VARIANTS["dark on light"])
    return path


def test_lengths_choose_the_digits():
    """At most as many as the network knows, the longest even when it is short."""
    lengths = torch.tensor([0.1, 0.7, 0.2, 0.9, 0.6, 0, 0, 0, 0, 0])
    assert recognition.choose_digits(lengths, 1) == (3,)
    assert recognition.choose_digits(lengths, 2) == (3, 1)
    assert recognition.choose_digits(lengths * torch.tensor([1, 0.5] * 5), 2) == (4,)
    assert recognition.choose_digits(lengths / 2, 2) == (3,)


def test_a_line_for_each_picture(monkeypatch, capsys, picture, tmp_path):
    """An untrained network is not sure: a question mark; the JSON has the same longest digit."""
    model = save(tmp_path / "mnist.safetensors")
    code, out, err = call(monkeypatch, capsys, model, picture, picture)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first == second
    reading = recognition.read(recognition.load_reader(model), read_handwriting(picture))
    (digit,) = reading.digits
    assert first == f"{picture}: {digit}? ({reading.lengths[digit]:.2f})"
    code, out, _ = call(monkeypatch, capsys, model, picture, "--json")
    answer = json.loads(out)
    assert answer["image"] == str(picture) and answer["digits"] == [digit]
    np.testing.assert_allclose(answer["lengths"], reading.lengths, atol=1e-4)


@pytest.mark.parametrize("image_size", [28, 36])
def test_figure(monkeypatch, capsys, picture, tmp_path, image_size):
    model = save(tmp_path / "network.safetensors", image_size=image_size)
    figure = tmp_path / "new" / "figure.png"
    code, _, err = call(monkeypatch, capsys, model, picture, "--figure", figure)
    assert (code, err) == (0, "")
    with Image.open(figure) as image:
        assert image.width == 1600


def test_the_size_that_fits_the_reconstruction_best_is_taken():
    """A network that always draws the same box of 26 px prefers the largest of the sizes."""
    box = torch.zeros(36, 36)
    box[6:32, 10:28] = 1

    class Network(torch.nn.Module):
        def forward(self, images):
            lengths = torch.full((len(images), 10), 0.2)
            return Prediction(lengths, torch.zeros(len(images), 10, 4))

        def decoder(self, capsules, labels):
            return box.expand(len(capsules), labels.shape[1], 36, 36)

    ink = np.zeros((200, 200))
    ink[20:150, 40:130] = 1
    reading = recognition.read(recognition.Reader(Network(), 36, 2), ink)
    assert np.count_nonzero(reading.image.max(axis=1)) == 26


def test_baselines_answer_with_probabilities():
    """Of a network for one digit they sum to 1; there is nothing to draw."""
    torch.manual_seed(0)
    scores = torch.randn(1, 10)
    one = calibration.probabilities(scores, 1)
    assert one.sum().item() == pytest.approx(1)
    two = calibration.probabilities(scores, 2)
    assert ((two > 0.5) == (scores > 0)).all()


def test_what_cannot_be_read_is_one_line_each_and_the_rest_is_answered(
    monkeypatch, capsys, picture, tmp_path
):
    model = save(tmp_path / "mnist.safetensors")
    text, empty, half = (tmp_path / name for name in ("text.png", "empty.png", "half.png"))
    text.write_text("no picture")
    empty.write_bytes(encoded(Image.new("RGB", (50, 50), RED)))
    half.write_bytes(VARIANTS["same again"][:300])
    images = [tmp_path / "none.png", text, empty, half, tmp_path, picture]
    code, out, err = call(monkeypatch, capsys, model, *images)
    assert code == 1
    assert out.count("\n") == 1 and out.startswith(f"{picture}: ")
    wanted = [
        "is missing",
        "a format that Pillow knows",
        "empty: ",
        "not a whole picture",
        "folder",
    ]
    for line, path, words in zip(err.splitlines(), images[:-1], wanted, strict=True):
        assert line.startswith(f"predict: {path}") and words in line, line


@pytest.mark.parametrize("content", [None, b"no checkpoint at all", "picture"])
def test_wrong_checkpoint_is_one_line(monkeypatch, capsys, picture, tmp_path, content):
    model = tmp_path / "model.safetensors"
    if content is not None:
        model.write_bytes(picture.read_bytes() if content == "picture" else content)
    code, out, err = call(monkeypatch, capsys, model, picture)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and err.startswith(f"predict: {model} is ")


def test_figure_without_decoder_is_one_line(monkeypatch, capsys, picture, tmp_path):
    model = save(tmp_path / "mnist.safetensors", decoder_sizes=None)
    code, out, err = call(monkeypatch, capsys, model, picture)
    assert code == 0 and "five.png: " in out
    code, out, err = call(monkeypatch, capsys, model, picture, "--figure", tmp_path / "out.png")
    assert (code, out) == (1, "")
    assert err == f"predict: {model} has no decoder: no reconstruction for --figure\n"
