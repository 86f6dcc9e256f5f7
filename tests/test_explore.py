"""The page to play with, as a person uses it in headless Chromium; its numbers are Python's."""

import base64
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
import torch

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES, write_idx
from capsnet.explore import __main__ as program
from capsnet.explore import page
from capsnet.explore.weights import as_shown, fit_into, quantise
from capsnet.learning.evaluation import load_evaluator
from capsnet.nn.baseline import BaselineCNN
from capsnet.nn.capsnet import CapsNet
from capsnet.reading.handwriting import fit
from capsnet.reading.recognition import load_reader, read
from tests import browser

SIZES = dict(conv_channels=16, primary_types=4, decoder_sizes=[32, 64], weight_std=0.5)
TASKS = {"one": (28, 1, 0), "two": (36, 2, 4)}
INK = """(() => {  // of a copy: reading the paper itself would make it slow
  const copy = Object.assign(document.createElement("canvas"), {width: 280, height: 280});
  const context = copy.getContext("2d", {willReadFrequently: true});
  context.drawImage(document.getElementById("paper"), 0, 0);
  return [...context.getImageData(0, 0, 280, 280).data].filter((_, n) => n % 4 === 0);
})()"""
needs_chromium = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"
)


def make_digits(folder) -> None:
    """Strokes, ten of each class, in both splits."""
    random = np.random.default_rng(0)
    images = np.zeros((100, 28, 28), np.uint8)
    for image in images:
        for _ in range(3):
            top, left, height, width = random.integers(4, 18, 4)
            image[top : top + max(2, height // 3), left : left + max(2, width // 3)] = 255
    folder.mkdir()
    for split in ("train", "test"):
        write_idx(folder / ARCHIVES[split][0], images)
        write_idx(folder / ARCHIVES[split][1], np.arange(100) % 10)


@pytest.fixture(scope="module", params=TASKS)
def made(request, tmp_path_factory):
    """(folder, checkpoint, page, evaluator) of a network that was not trained."""
    size, num_digits, shift = TASKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    make_digits(folder / "digits")
    torch.manual_seed(0)
    sizes = SIZES | {"image_size": size}
    model, path = CapsNet(**sizes), folder / "net.safetensors"
    with torch.no_grad():
        model.primary.convolution.weight *= 8
    checkpoint.save(model, path, network="capsnet", arguments=sizes, num_digits=num_digits)
    evaluator = load_evaluator(
        path, folder / "digits", torch.device("cpu"), precision="float32", seed=1, batch_size=50,
        num_digits=num_digits, image_size=size, max_shift=shift)  # fmt: skip
    names = pd.DataFrame({"digit": [3], "dimension": [0], "name": ["thickness +30 %"]})
    capsules = {digit: 0.1 * torch.randn(5, 16) for digit in range(10)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "FEW", 1000)  # so that layers of this size are quantised
        text = page.explorer(evaluator, evaluator.evaluate(100), names, capsules, "net")
    out = folder / "net.html"
    out.write_text(text)
    return folder, path, out, evaluator


def said(node: dict) -> str:
    return node.get("role", {}).get("value", "")


def told(text: str) -> dict:
    packed = re.search(r'id="payload" type="text/plain">([^<]*)<', text)[1]
    data = zlib.decompress(base64.b64decode(packed))
    return json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])


def test_the_page_has_ten_of_each_class_the_failures_and_says_how_far_it_is_off(made):
    _, _, out, evaluator = made
    found = told(out.read_text())
    predictions = evaluator.evaluate(100)
    wrong = int((~predictions.correct).sum())
    groups = [example["group"] for example in found["examples"]]
    assert all(groups.count(f"Digit {digit}") == 10 for digit in range(10))
    shown = f"Read wrongly, {min(60, wrong)} of {wrong} among 100"
    assert groups.count(shown) == min(60, wrong) > 0
    assert found["meanings"][3][0]["name"] == "thickness +30 %"
    assert 0 < found["difference"]["length"] < 0.05
    assert f"at most {found['difference']['length']:.3f}" in found["about"]
    text = re.sub(r"[A-Za-z0-9+/=]{1000,}", "", out.read_text())  # without the payload, base64
    assert "{{" not in text and "http" not in text.replace("http-equiv", "")


@needs_chromium
def test_a_person_can_browse_draw_and_turn(made, tmp_path):
    """Numbers of ten test digits are those of `capsnet.predict` within what the page states; a
    digit is drawn by mouse, finger and keys; a slider moves; nothing leaves the page.
    """
    _, path, out, evaluator = made
    found, reader, size = told(out.read_text()), load_reader(path), evaluator.image_size
    ready = "document.body?.dataset.ready && !document.body.dataset.busy"
    with browser.Browser() as tab:
        tab.open(out)
        tab.wait_for(ready)
        for number in range(0, 100, 10):
            tab.run(f"document.querySelector('#examples button[data-number=\"{number}\"]').click()")
            tab.wait_for(ready)
            image = np.array(tab.run("[...Explorer.state.image]"), np.float32).reshape(size, size)
            reading = read(reader, image)
            lengths = tab.run("Explorer.state.passes[Explorer.state.pass].lengths")
            assert np.abs(lengths - reading.lengths).max() <= found["difference"]["length"] + 1e-3
            drawn = np.array(tab.run(f"[...Explorer.decode({reading.digits[0]})]"))
            off = np.abs(drawn.reshape(size, size) - reading.reconstructions[0]).mean()
            assert off <= 2 * found["difference"]["pixel"] + 1e-3
            assert "the label says" in tab.run("document.getElementById('answer').textContent")

        tab.run("document.getElementById('clear').click(); scrollTo(0, 0)")
        box = tab.run(
            "(b => [b.x, b.y, b.width])(document.getElementById('paper').getBoundingClientRect())"
        )
        left, top, width = box
        places = [
            (left + width * x, top + width * y) for x, y in ((0.3, 0.2), (0.6, 0.3), (0.4, 0.8))
        ]
        before = tab.run("Explorer.state.number")
        tab.drag(places)
        tab.wait_for(f"Explorer.state.number > {before}")
        tab.wait_for(ready)
        if evaluator.num_digits == 1:  # nearly as capsnet.reading.handwriting does it
            ink = tab.run(INK)
            ink = np.array(ink, np.float64).reshape(280, 280) / 255
            given = np.array(tab.run("[...Explorer.state.image]")).reshape(size, size)
            expected = fit(ink, image_size=size, box_size=20)
            assert np.abs(given - expected).mean() < 0.02 and given.max() == 1

        else:  # the other digit on a layer of its own, the two laid over each other
            first = np.array(tab.run("[...Explorer.state.image]"))
            tab.run("document.querySelector('input[name=layer][value=\"1\"]').click()")
            before = tab.run("Explorer.state.number")
            tab.drag([(left + width * 0.7, top + width * y) for y in (0.2, 0.8)])
            tab.wait_for(f"Explorer.state.number > {before}")
            tab.wait_for(ready)
            both = np.array(tab.run("[...Explorer.state.image]"))
            assert (both >= first - 1e-6).all() and both.sum() > first.sum() and both.max() <= 1
            colours = tab.run(f"{INK.replace('% 4 === 0', '% 4 === 2')}.some((blue) => blue > 200)")
            assert colours  # the first is blue, the second orange

        drawn = sum(tab.run(INK))
        tab.run("document.querySelector('input[name=tool][value=eraser]').click()")
        tab.drag(places[:2])
        tab.wait_for(ready)
        assert sum(tab.run(INK)) < drawn
        tab.run("document.querySelector('input[name=tool][value=pen]').click()")

        before = tab.run("Explorer.state.number")
        tab.touch(places[::-1])
        tab.wait_for(f"Explorer.state.number > {before}")
        tab.wait_for(ready)

        before = tab.run("Explorer.state.number")
        tab.run("document.getElementById('paper').focus()")
        for key in (" ", "ArrowDown", "ArrowDown", "ArrowRight", " "):
            tab.press(key)
        tab.wait_for(f"Explorer.state.number > {before}")
        tab.wait_for(ready)

        tab.run("Explorer.choose(3); document.getElementById('clear').click()")
        tab.run("new Promise((resolve) => setTimeout(resolve, 500))")
        assert tab.run("document.getElementById('answer').textContent").startswith("Draw ")
        tab.run("Explorer.choose(3)")
        tab.wait_for(ready)
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        sliders = [node["name"]["value"] for node in nodes if said(node) == "slider"]
        assert len(sliders) == 17 and all(sliders) and "routing iterations" in sliders[0]

        turned = "document.getElementById('turned').toDataURL()"
        before = tab.run(turned)
        tab.run("document.querySelector('.knob input').focus()")
        tab.press("End")
        assert tab.run(turned) != before
        assert tab.run("document.querySelectorAll('#strip canvas').length") == 11
        tab.run("document.getElementById('reset').click()")
        assert tab.run(turned) == before
        assert "real digits" in tab.run(
            "document.querySelector('.knob input').getAttribute('aria-valuetext')"
        )

        tab.run("HTMLAnchorElement.prototype.click = function () { window.saved = this; }")
        tab.run("document.getElementById('save').click()")
        assert tab.run("saved.download").startswith("capsule-")
        png = base64.b64decode(tab.run("saved.href").removeprefix("data:image/png;base64,"))
        assert png.startswith(b"\x89PNG") and len(png) > 1000

        tab.run("const slider = document.getElementById('passes'); slider.value = 10;"
                "slider.dispatchEvent(new Event('input'))")  # fmt: skip
        assert tab.run("document.getElementById('passes-told').textContent") == "10"
        for width in (1400, 800, 390):
            tab.resize(width, 900, mobile=width < 500)
            assert tab.run("document.documentElement.scrollWidth") <= width
            tab.picture(tmp_path / f"{width}.png")
        assert all(url.startswith(("file:", "blob:", "data:")) for url in tab.asked)
        assert tab.said == []


def test_routing_and_weights_of_the_page_are_those_of_the_network(made):
    """The state that the page shows, read by Python, is within the stated difference."""
    *_, evaluator = made
    weights = {
        key: each
        for key, each in evaluator.model.state_dict().items()
        if each.ndim > 1 and each.numel() > 1000
    }
    finest, quantised = fit_into(weights, 10**9)
    assert finest == 0
    for name, tensor in as_shown(evaluator.model, quantised).items():
        if name in weights:
            rows = (tensor - weights[name]).flatten(1).abs().max(1).values
            assert (rows.numpy() <= 0.51 * quantised[name].steps).all()
    assert page.compare(evaluator, as_shown(evaluator.model, quantised)).length < 0.05


def test_less_room_makes_coarser_weights():
    torch.manual_seed(0)
    weights = {"w": torch.randn(100, 1000)}
    finest, found = fit_into(weights, 70_000)
    assert finest > 0 and np.abs(found["w"].whole).max() < 127
    assert len(zlib.compress(found["w"].whole.tobytes(), 6)) <= 70_000
    with pytest.raises(ValueError, match="too large for one page"):
        fit_into(weights, 1000)
    assert quantise(torch.zeros(2, 3), 0.1).steps.tolist() == [1, 1]


def test_the_program_writes_the_page_or_one_line(made, tmp_path, monkeypatch, capsys):
    folder, path, *_ = made
    monkeypatch.setattr(program, "MEASURED", 3)
    command = ["explore", str(path), "--digits", str(folder / "digits"), "--examples", "40"]
    out = tmp_path / "page.html"
    monkeypatch.setattr("sys.argv", [*command, "--out", str(out)])
    assert program.main() == 0 and out.stat().st_size < page.MOST_BYTES
    assert "thickness" in out.read_text() or told(out.read_text())["meanings"]
    capsys.readouterr()
    network = tmp_path / "cnn.safetensors"
    sizes = dict(image_size=28, num_digits=1)
    checkpoint.save(BaselineCNN(**sizes), network, network="baseline", arguments=sizes)
    monkeypatch.setattr("sys.argv", ["explore", str(network), "--digits", str(folder / "digits")])
    assert program.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("explore: ") and "nothing to turn" in error and error.count("\n") == 1
    assert (
        "nothing to turn" in page.no_explorer("cnn") and not network.with_suffix(".html").exists()
    )
