"""The page of a network, used as by a person in headless Chromium; its numbers equal Python's."""

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
from capsnet.explore.weights import fit_into, packed_size, quantise, with_weights
from capsnet.learning.evaluation import load_evaluator
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.registry import network_class
from capsnet.nn.stem import fold_norms
from capsnet.reading.handwriting import fit
from capsnet.reading.recognition import load_reader, read
from tests import browser

SIZES = dict(decoder_sizes=[32, 64], weight_std=0.5)
STEM = dict(channels=[16, 32], kernels=[5, 5], strides=[2, 1], primary_kernel=5)
NETWORK = {  # network, sizes, image size, number of digits, shift
    "one": ("capsnet", SIZES | dict(conv_channels=16, primary_types=4), 28, 1, 0),
    "two": ("compact", SIZES | dict(stem=STEM), 36, 2, 4),
}
READY = "document.body?.dataset.ready && !document.body.dataset.busy"
INK = """(() => {  // of a copy: reading the paper itself would make it slow
  const copy = Object.assign(document.createElement("canvas"), {width: 280, height: 280});
  const context = copy.getContext("2d", {willReadFrequently: true});
  context.drawImage(document.getElementById("paper"), 0, 0);
  return [...context.getImageData(0, 0, 280, 280).data].filter((_, n) => n % 4 === 0);
})()"""
needs_chromium = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"
)


@pytest.fixture(scope="module", params=NETWORK)
def made(request, tmp_path_factory):
    """(checkpoint, page, evaluator) of an untrained network and ten strokes of each class."""
    network, sizes, size, num_digits, shift = NETWORK[request.param]
    folder, random = tmp_path_factory.mktemp(request.param), np.random.default_rng(0)
    images = np.zeros((100, 28, 28), np.uint8)
    for image in images:
        for _ in range(3):
            top, left, height, width = random.integers(4, 18, 4)
            image[top : top + max(2, height // 3), left : left + max(2, width // 3)] = 255
    (folder / "digits").mkdir()
    for split in ("train", "test"):
        write_idx(folder / "digits" / ARCHIVES[split][0], images)
        write_idx(folder / "digits" / ARCHIVES[split][1], np.arange(100) % 10)
    torch.manual_seed(0)
    sizes |= {"image_size": size}
    model, path = network_class(network)(**sizes), folder / "net.safetensors"
    model(torch.rand(100, 1, size, size).round())  # running statistics
    with torch.no_grad():
        model.layers[-1].weight *= 8
    checkpoint.save(model, path, network=network, arguments=sizes, num_digits=num_digits)
    evaluator = load_evaluator(
        path, folder / "digits", torch.device("cpu"), precision="float32", seed=1, batch_size=50,
        num_digits=num_digits, image_size=size, max_shift=shift)  # fmt: skip
    names = pd.DataFrame({"digit": [3], "dimension": [0], "name": ["thickness +30 %"]})
    capsules = {digit: 0.1 * torch.randn(5, 16) for digit in range(10)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "FEW", 1000)  # so that layers of this size are quantised
        text = page.explorer(
            evaluator, evaluator.evaluate(100), names, capsules, "net", error="test error 1.50 %"
        )
    (folder / "net.html").write_text(text)
    return path, folder / "net.html", evaluator


def header(text: str) -> dict:
    packed = re.search(r'id="payload" type="text/plain">([^<]*)<', text)[1]
    data = zlib.decompress(base64.b64decode(packed))
    return json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])


def test_the_page_has_ten_of_each_class_the_failures_and_the_difference(made):
    _, out, evaluator = made
    found = header(out.read_text())
    wrong = int((~evaluator.evaluate(100).correct).sum())
    groups = [example["group"] for example in found["examples"]]
    assert all(groups.count(f"Digit {digit}") == 10 for digit in range(10))
    assert groups.count(
        f"Read wrongly, {min(60, wrong)} of {wrong} among 100 test examples"
    ) == min(60, wrong)
    assert wrong > 0 and found["meanings"][3][0]["name"] == "thickness +30 %"
    assert 0 < found["difference"]["length"] < 0.05 and found["difference"]["examples"] == 100
    assert f"at most {found['difference']['length']:.3f}" in found["about"]
    text = re.sub(r"[A-Za-z0-9+/=]{1000,}", "", out.read_text())  # without the payload, base64
    assert "{{" not in text and "http" not in text.replace("http-equiv", "")


def draw(tab: browser.Browser, action) -> None:
    """Do something that changes the drawing, and wait for the network."""
    before = tab.run("Explorer.state.number")
    action()
    tab.wait_for(f"Explorer.state.number > {before}")
    tab.wait_for(READY)


@needs_chromium
def test_a_person_can_browse_draw_and_turn(made, tmp_path):
    """Test digits have the numbers of `capsnet.predict` within the stated difference; mouse, finger
    and keys draw; sliders move; nothing leaves the page.
    """
    path, out, evaluator = made
    found, reader, size = header(out.read_text()), load_reader(path), evaluator.image_size
    with browser.Browser() as tab:
        tab.open(out)
        tab.wait_for(READY)
        digits = "two digits" if evaluator.num_digits > 1 else "a digit"
        introduction = tab.run("document.getElementById('intro').textContent")
        assert introduction.startswith(f"Draw {digits}") and "test error 1.50 %" in introduction
        assert sum(tab.run(INK)) > 0  # the invitation on the empty paper
        for number in range(0, 100, 30):
            tab.run(f"document.querySelector('#examples button[data-number=\"{number}\"]').click()")
            tab.wait_for(READY)
            image = np.array(tab.run("[...Explorer.state.image]"), np.float32).reshape(size, size)
            reading = read(reader, image)
            lengths = tab.run("Explorer.state.passes[Explorer.state.pass].lengths")
            assert np.abs(lengths - reading.lengths).max() <= found["difference"]["length"] + 1e-3
            drawn = np.array(tab.run(f"[...Explorer.decode({reading.digits[0]})]"))
            off = np.abs(drawn.reshape(size, size) - reading.reconstructions[0]).mean()
            assert off <= 2 * found["difference"]["pixel"] + 1e-3
            assert "the label says" in tab.run("document.getElementById('answer').textContent")

        tab.run("document.getElementById('clear').click(); scrollTo(0, 0)")
        box = "(b => [b.x, b.y, b.width])(document.getElementById('paper').getBoundingClientRect())"
        left, top, width = tab.run(box)
        stroke = ((0.3, 0.2), (0.6, 0.3), (0.4, 0.8))
        places = [(left + width * x, top + width * y) for x, y in stroke]
        draw(tab, lambda: tab.drag(places))
        if evaluator.num_digits == 1:  # nearly as capsnet.reading.handwriting does it
            ink = np.array(tab.run(INK), np.float64).reshape(280, 280) / 255
            given = np.array(tab.run("[...Explorer.state.image]")).reshape(size, size)
            assert np.abs(given - fit(ink, image_size=size, box_size=20)).mean() < 0.02
            assert given.max() == 1
        else:  # the other digit on a layer of its own, the two laid over each other
            first = np.array(tab.run("[...Explorer.state.image]"))
            tab.run("document.querySelector('input[name=layer][value=\"1\"]').click()")
            draw(tab, lambda: tab.drag([(left + width * 0.7, top + width * y) for y in (0.2, 0.8)]))
            both = np.array(tab.run("[...Explorer.state.image]"))
            assert (both >= first - 1e-6).all() and both.sum() > first.sum() and both.max() <= 1
            # The first digit is blue, the second orange.
            assert tab.run(f"{INK.replace('% 4 === 0', '% 4 === 2')}.some((blue) => blue > 200)")

        drawn = sum(tab.run(INK))
        tab.run("document.querySelector('input[name=tool][value=eraser]').click()")
        tab.drag(places[:2])
        tab.wait_for(READY)
        assert sum(tab.run(INK)) < drawn
        tab.run("document.querySelector('input[name=tool][value=pen]').click()")
        draw(tab, lambda: tab.touch(places[::-1]))
        tab.run("document.getElementById('paper').focus()")
        keys = (" ", "ArrowDown", "ArrowDown", "ArrowRight", " ")
        draw(tab, lambda: [tab.press(key) for key in keys])

        tab.run("Explorer.choose(3)")
        tab.wait_for(READY)
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        sliders = [node["name"]["value"] for node in nodes
                   if node.get("role", {}).get("value") == "slider"]  # fmt: skip
        assert len(sliders) == 17 and all(sliders) and "routing iterations" in sliders[0]
        assert sliders[1].startswith("0:") and sliders[16].startswith("15:")  # dimensions

        first = found["meanings"][tab.run("Explorer.state.digit")][0]
        low, high = tab.run("(i => [+i.min, +i.max])(document.querySelector('.knob input'))")
        assert low <= first["mean"] - 1.5 * first["two_sigma"] + 1e-9  # room beyond real digits
        assert high >= first["mean"] + 1.5 * first["two_sigma"] - 1e-9 and high < 10
        turned = "document.getElementById('turned').toDataURL()"
        before = tab.run(turned)
        tab.run("document.querySelector('.knob input').focus()")
        tab.press("End")
        assert tab.run(turned) != before
        assert tab.run("document.querySelectorAll('#strip canvas').length") == 11
        tab.run("document.getElementById('reset').click()")
        assert tab.run(turned) == before
        for width in (1400, 390):
            tab.resize(width, 900, mobile=width < 500)
            assert tab.run("document.documentElement.scrollWidth") <= width
        assert all(url.startswith(("file:", "blob:", "data:")) for url in tab.asked)
        assert tab.said == []


def test_quantised_weights_are_within_half_a_step(made):
    *_, evaluator = made
    folded = fold_norms(evaluator.model)
    state = folded.state_dict()
    weights = {name: each for name, each in state.items() if each.ndim > 1 and each.numel() > 1000}
    finest, quantised = fit_into(weights, 10**9)
    shown = with_weights(folded, quantised)
    assert finest == 0
    for name, weight in weights.items():
        rows = (shown.state_dict()[name] - weight).flatten(1).abs().max(1).values
        assert (rows.numpy() <= 0.51 * quantised[name].steps).all()
    assert page.compare(evaluator, shown).length < 0.05


def test_less_room_makes_coarser_weights():
    torch.manual_seed(0)
    weights = {"w": torch.randn(100, 1000)}
    finest, found = fit_into(weights, 70_000)
    assert finest > 0 and np.abs(found["w"].whole).max() < 127
    assert packed_size(found) <= 70_000
    with pytest.raises(ValueError, match="too large for one page"):
        fit_into(weights, 1000)
    assert quantise(torch.zeros(2, 3), 0.1).steps.tolist() == [1, 1]


def test_the_program_writes_the_page(made, tmp_path, monkeypatch):
    path, *_ = made
    out = tmp_path / "page.html"
    monkeypatch.setattr(program, "MEASURED", 2)
    monkeypatch.setattr(page, "COMPARED", 20)
    digits = ["--digits", str(path.parent / "digits"), "--examples", "20"]
    monkeypatch.setattr("sys.argv", ["explore", str(path), *digits, "--out", str(out)])
    assert program.main() == 0 and out.stat().st_size < page.MOST_BYTES
    assert header(out.read_text())["meanings"]


def test_a_network_without_a_decoder_has_no_page(made, tmp_path, monkeypatch, capsys):
    digits = made[0].parent / "digits"
    network, sizes = tmp_path / "net.safetensors", {"image_size": 28, "decoder_sizes": None}
    model = CapsNet(conv_channels=8, primary_types=2, **sizes)
    arguments = sizes | {"conv_channels": 8, "primary_types": 2}
    checkpoint.save(model, network, network="capsnet", arguments=arguments, num_digits=1)
    monkeypatch.setattr("sys.argv", ["explore", str(network), "--digits", str(digits)])
    assert program.main() == 1 and not network.with_suffix(".html").exists()
    error = capsys.readouterr().err
    assert error.startswith("explore: ") and "nothing to turn" in error and error.count("\n") == 1
