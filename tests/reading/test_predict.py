"""The program: a line for each picture, in words or as JSON, and a figure."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from capsnet import predict
from capsnet.reading.handwriting import read_handwriting
from capsnet.reading.recognition import load_reader, read


def call(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
    code = predict.main()
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_line_for_each_picture(monkeypatch, capsys, picture, digits):
    """An untrained network rejects everything."""
    code, out, err = call(monkeypatch, capsys, digits, picture, picture)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first == second
    reading = read(load_reader(digits), read_handwriting(picture))
    (digit,) = reading.digits
    length = reading.lengths[digit]
    assert first == f"{picture}: rejected, perhaps {digit} ({length:.2f})"
    sure = predict.as_text(picture, reading._replace(rejected=False), load_reader(digits))
    assert sure == f"{picture}: {digit} ({length:.2f})"


def test_a_network_that_is_often_wrong_says_so(monkeypatch, capsys, picture, pairs):
    _, out, _ = call(monkeypatch, capsys, pairs, picture)
    assert out.endswith("); this network is wrong on 96 % of its validation pairs\n")


def test_answers_as_json(monkeypatch, capsys, picture, digits, pairs):
    _, out, _ = call(monkeypatch, capsys, pairs, picture, "--json")
    answer = json.loads(out)
    reading = read(load_reader(pairs), read_handwriting(picture))
    np.testing.assert_allclose(answer.pop("lengths"), reading.lengths, atol=1e-4)
    wanted = {"image": str(picture), "digits": [*reading.digits], "rejected": True}
    assert answer == wanted | {"error": 96.4, "error_source": "validation"}
    _, out, _ = call(monkeypatch, capsys, digits, picture, "--json")
    assert json.loads(out)["error"] is None


@pytest.mark.parametrize("network", ["digits", "pairs"])
def test_figure(monkeypatch, capsys, picture, tmp_path, request, network):
    model, figure = request.getfixturevalue(network), tmp_path / "new" / "figure.png"
    code, _, err = call(monkeypatch, capsys, model, picture, "--figure", figure)
    assert (code, err) == (0, "")
    with Image.open(figure) as image:
        assert image.width == 1600


def test_what_cannot_be_read_is_one_line_each_and_the_rest_is_answered(
    monkeypatch, capsys, picture, tmp_path, digits
):
    text, empty, half = (tmp_path / name for name in ("text.png", "empty.png", "half.png"))
    text.write_text("no picture")
    Image.new("RGB", (50, 50), (255, 40, 40)).save(empty)
    half.write_bytes(picture.read_bytes()[:300])
    images = [tmp_path / "none.png", text, empty, half, tmp_path, picture]
    code, out, err = call(monkeypatch, capsys, digits, *images)
    assert code == 1
    assert out.count("\n") == 1 and out.startswith(f"{picture}: ")
    wanted = ["is missing", "that Pillow knows", "empty: ", "not a whole picture", "folder"]
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


def test_figure_without_decoder_is_one_line(monkeypatch, capsys, picture, tmp_path, save):
    model = save(tmp_path / "mnist.safetensors", decoder_sizes=None)
    code, out, err = call(monkeypatch, capsys, model, picture)
    assert code == 0 and "seven.png: " in out
    code, out, err = call(monkeypatch, capsys, model, picture, "--figure", tmp_path / "out.png")
    assert (code, out) == (1, "")
    assert err == f"predict: {model} has no decoder: no reconstruction for --figure\n"
