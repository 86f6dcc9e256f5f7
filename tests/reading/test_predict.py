"""The program: a line for each picture, as text or JSON, and a figure."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from capsnet import predict
from capsnet.reading.draw import as_given
from capsnet.reading.handwriting import read_handwriting
from capsnet.reading.recognition import Reading, load_reader, read


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
        return predict.main(), *capsys.readouterr()

    return run


def test_a_line_for_each_picture(call, picture, digits, pairs):
    reading = read(load_reader(digits), read_handwriting(picture))
    answer = f"{reading.digits[0]} ({reading.lengths.max():.2f})"
    line = f"{picture}: rejected, perhaps {answer}: no capsule is longer than 0.5\n"
    assert call(digits, picture, picture) == (0, 2 * line, "")
    sure = predict.as_text(picture, reading._replace(reason=None), load_reader(digits))
    assert sure == f"{picture}: {answer}"
    _, out, _ = call(pairs, picture)
    assert out.endswith("; this network is wrong on 96 % of its validation pairs\n")


def test_answers_as_json_and_a_figure(call, picture, tmp_path, digits, pairs):
    answer = json.loads(call(pairs, picture, "--json")[1])
    reading = read(load_reader(pairs), read_handwriting(picture))
    np.testing.assert_allclose(answer.pop("lengths"), reading.lengths, atol=1e-4)
    wanted = {"image": str(picture), "digits": [*reading.digits], "rejected": True}
    wanted |= {"reason": "no capsule is longer than 0.5", "classes": reading.names}
    assert answer == wanted | {"error": 96.4, "error_source": "validation"}
    assert json.loads(call(digits, picture, "--json")[1])["error"] is None
    assert call(digits, "--json", picture) == call(digits, picture, "--json")
    for model in (digits, pairs):
        figure = tmp_path / "new" / f"{model.stem}.png"
        code, _, err = call(model, picture, "--figure", figure)
        assert (code, err) == (0, "") and Image.open(figure).width == 1600


@pytest.mark.parametrize(("shape", "wanted"), [((3, 8, 8), [200, 0, 0]), ((8, 8), [60, 60, 60])])
def test_the_figure_shows_a_picture_as_the_network_sees_it(tmp_path, shape, wanted):
    """In colour, or its brightness: 0.299 of 200 for red."""
    Image.new("RGB", (20, 20), (200, 0, 0)).save(tmp_path / "red.png")
    reading = Reading(np.zeros(shape), np.zeros(10), (0,), None, None)
    shown = as_given((tmp_path / "red.png").read_bytes(), reading, 10)
    assert np.abs(255 * shown[5, 5] - wanted).max() <= 1


def test_an_unreadable_picture_is_one_line_and_the_others_are_read(call, picture, tmp_path, digits):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    code, out, err = call(digits, tmp_path / "none.png", text, tmp_path, picture)
    assert code == 1 and out.count("\n") == 1 and out.startswith(f"{picture}: ")
    assert err.splitlines() == [
        f"predict: {tmp_path / 'none.png'}: No such file or directory",
        f"predict: {text}: not a picture in a format that Pillow knows",
        f"predict: {tmp_path}: Is a directory",
    ]


def test_a_wrong_checkpoint_or_one_without_a_decoder_is_one_line(call, picture, tmp_path, save):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(picture.read_bytes())
    for model in (tmp_path / "none.safetensors", broken):
        code, out, err = call(model, picture)
        assert (code, out) == (1, "") and err.startswith(f"predict: {model} is ")
        assert err.count("\n") == 1
    model = save(tmp_path / "mnist.safetensors", decoder_sizes=None)
    assert call(model, picture)[0] == 0
    code, out, err = call(model, picture, "--figure", tmp_path / "out.png")
    assert (code, out) == (1, "")
    assert err == f"predict: {model} has no decoder: no reconstruction for --figure\n"


def test_without_a_checkpoint_the_pretrained_networks_read(
    call, picture, digits, pairs, monkeypatch
):
    monkeypatch.setattr(predict, "pretrained", {1: digits, 2: pairs}.__getitem__)
    assert call(picture) == call(digits, picture)
    assert call("--pairs", picture) == call(pairs, picture)
    for wrong in (["--pairs", digits, picture], [digits]):
        with pytest.raises(SystemExit):
            call(*wrong)
