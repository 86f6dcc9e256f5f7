"""The page of a network, used as by a person in headless Chromium; its numbers equal Python's."""

import base64
import http.server
import json
import re
import shutil
import subprocess
import threading
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from capsnet import checkpoint
from capsnet.data.mnist import Digits, save_digits
from capsnet.explore import __main__ as program
from capsnet.explore import page
from capsnet.learning.evaluation import load_evaluator
from capsnet.nn.registry import network_class
from capsnet.reading.handwriting import fit
from capsnet.reading.recognition import load_reader, read_image

SIZES = dict(decoder_sizes=[32, 64], weight_std=0.5)
STEM = dict(channels=[16, 32], kernels=[5, 5], strides=[2, 1], primary_kernel=5)
NETWORK = {  # network, sizes, image size, number of digits, shift
    "one": ("capsnet", SIZES | dict(conv_channels=16, primary_types=4), 28, 1, 0),
    "two": ("compact", SIZES | dict(stem=STEM), 36, 2, 4),
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"
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
    digits = Digits(torch.from_numpy(images), torch.arange(100) % 10)
    save_digits(folder / "digits", {"test": digits})
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
    names = pd.DataFrame({"digit": ["3"], "dimension": [0], "name": ["thickness +30 %"]})
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
    few = min(60, wrong)
    assert [groups.count(group) for group in dict.fromkeys(groups)] == [10] * 10 + [few]
    assert wrong > 0 and found["meanings"][3][0]["name"] == "thickness +30 %"
    assert 0 < found["difference"]["length"] < 0.05 and found["difference"]["examples"] == 100
    assert f"at most {found['difference']['length']:.3f}" in found["about"]
    text = re.sub(r"[A-Za-z0-9+/=]{1000,}", "", out.read_text())  # without the payload, base64
    assert "{{" not in text and "http" not in text.replace("http-equiv", "")


PERSON = """async () => {  // What a person does, and what the page then shows.
  const found = {read: [], errors: []}, one = (name) => document.querySelector(name);
  addEventListener("error", (event) => found.errors.push(event.message));
  const wait = async (test) => { while (!test()) await new Promise((go) => setTimeout(go, 20)); };
  const ready = () => wait(() => document.body.dataset.ready && !document.body.dataset.busy);
  const answer = async (action) => {
    const before = Explorer.state.number;
    action();
    await wait(() => Explorer.state.number > before);
    await ready();
  };
  const paper = one("#paper"), image = () => [...Explorer.state.image];
  paper.setPointerCapture = () => {};  // there is no pointer
  const drag = (places) => ["pointerdown", ...places.map(() => "pointermove"), "pointerup"].forEach(
    (type, n) => {
      const [x, y] = places[Math.min(Math.max(n - 1, 0), places.length - 1)];
      const box = paper.getBoundingClientRect(), at = {pointerId: 1, isPrimary: true, button: 0};
      at.clientX = box.x + box.width * x, at.clientY = box.y + box.width * y;
      paper.dispatchEvent(new PointerEvent(type, at));
    });
  const ink = () => {  // of a copy: reading the paper itself would make it slow
    const copy = Object.assign(document.createElement("canvas"), {width: 280, height: 280});
    const context = copy.getContext("2d");
    context.drawImage(paper, 0, 0);
    return [...context.getImageData(0, 0, 280, 280).data].filter((_, n) => n % 4 === 0);
  };
  await ready();
  for (const number of [0, 30, 60, 90]) {
    one(`#examples button[data-number="${number}"]`).click();
    await ready();
    const {lengths} = Explorer.state.passes[Explorer.state.pass];
    const decoded = lengths.map((_, digit) => [...Explorer.decode(digit)]);
    found.read.push({image: image(), lengths: [...lengths], decoded});
  }
  one("#clear").click();
  const stroke = [[0.3, 0.2], [0.6, 0.3], [0.4, 0.8]];
  await answer(() => drag(stroke));
  Object.assign(found, {drawn: image(), ink: ink()});
  const layer = {ink: found.ink.map((value) => value / 255), width: 280};
  const size = Math.sqrt(found.drawn.length);
  found.framed = [...Handwriting.fit(layer, size, null, {box: 20, centre: "box"})];
  found.brightest = [...Handwriting.overlay([[0.2, 0.7], [0.6, 0.5]], 2, "max")].slice(0, 2);
  if (!one("#layers").hidden) {
    one("input[name=layer][value=\\"1\\"]").click();
    await answer(() => drag([[0.7, 0.2], [0.7, 0.8]]));
    found.both = image();
  }
  const whole = ink();
  one("input[name=tool][value=eraser]").click();
  await answer(() => drag(stroke.slice(0, 2)));
  found.erased = whole.filter(Boolean).length - ink().filter(Boolean).length;
  one("input[name=tool][value=pen]").click();
  paper.focus();
  await answer(() => [" ", "ArrowDown", "ArrowRight", " "].forEach(
    (key) => paper.dispatchEvent(new KeyboardEvent("keydown", {key}))));
  Explorer.choose(3);
  await ready();
  const knob = one(".knob input"), turned = () => one("#turned").toDataURL(), before = turned();
  knob.value = knob.max;
  knob.dispatchEvent(new Event("input"));
  found.turned = turned() !== before;
  one("#reset").click();
  found.reset = turned() === before;
  one(".bar span").textContent = "a long name";
  const bars = [...document.querySelectorAll(".bar i")].map((bar) => bar.getBoundingClientRect());
  found.begins = new Set(bars.map(({left}) => left)).size;
  return {...found, digit: Explorer.state.digit, low: +knob.min, high: +knob.max};
}"""


def in_chromium(text: str, script: str, folder: Path) -> dict:
    """What an asynchronous function finds in a page, which sends it to a server here."""
    sent, done = [], threading.Event()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent.append(self.rfile.read(int(self.headers["Content-Length"])))
            done.set()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        send = f"fetch('http://127.0.0.1:{server.server_port}', {{method: 'POST', body}})"
        script = f"({script})().catch(error => ({{errors: [String(error)]}}))"
        script += f".then(JSON.stringify).then(body => {send})"
        text = text.replace("default-src 'none'", "default-src 'none'; connect-src *")
        (folder / "test.html").write_text(f"{text}<script>{script}</script>")
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={folder}/profile"]
        process = subprocess.Popen(
            [*command, (folder / "test.html").as_uri()], stderr=subprocess.DEVNULL
        )
        answered = done.wait(120)
        process.terminate()
        process.wait()
        server.shutdown()
    assert answered, "no answer from Chromium"
    return json.loads(sent[0])


@needs_chromium
def test_a_person_can_browse_draw_and_turn(made, tmp_path):
    """Test digits have the numbers of `capsnet.predict` within the stated difference; pointer and
    keys draw; sliders turn.
    """
    path, out, evaluator = made
    page_of, reader, size = header(out.read_text()), load_reader(path), evaluator.image_size
    found = in_chromium(out.read_text(), PERSON, tmp_path)
    assert found["errors"] == []
    for each in found["read"]:
        reading = read_image(reader, np.array(each["image"], np.float32).reshape(size, size))
        off = np.abs(each["lengths"] - reading.lengths).max()
        assert off <= page_of["difference"]["length"] + 1e-3
        drawn = np.array(each["decoded"][reading.digits[0]]).reshape(size, size)
        off = np.abs(drawn - reading.reconstructions[0]).mean()
        assert off <= 2 * page_of["difference"]["pixel"] + 1e-3
    drawn = np.array(found["drawn"])
    if evaluator.num_digits == 1:  # nearly as capsnet.reading.handwriting does it
        ink = np.array(found["ink"], np.float64).reshape(280, 280) / 255
        for pixels, centre in ((drawn, "mass"), (np.array(found["framed"]), "box")):
            wanted = fit(ink, image_size=size, box_size=20, centre=centre)
            assert np.abs(pixels.reshape(size, size) - wanted).mean() < 0.02 and pixels.max() == 1
    else:  # the other digit on a layer of its own, the two laid over each other
        both = np.array(found["both"])
        assert (both >= drawn - 1e-6).all() and both.sum() > drawn.sum() and both.max() <= 1
    assert found["brightest"] == pytest.approx([0.6, 0.7])
    assert found["begins"] == 1  # the bars of names of different lengths
    assert found["erased"] > 0 and found["turned"] and found["reset"]
    first = page_of["meanings"][found["digit"]][0]
    assert found["low"] <= first["mean"] - 1.5 * first["two_sigma"] + 1e-9  # beyond real digits
    assert found["high"] >= first["mean"] + 1.5 * first["two_sigma"] - 1e-9 and found["high"] < 10


def test_the_program_writes_the_page(made, tmp_path, monkeypatch):
    path, *_ = made
    out = tmp_path / "page.html"
    monkeypatch.setattr(program, "MEASURED", 2)
    monkeypatch.setattr(page, "COMPARED", 20)
    digits = ["--digits", str(path.parent / "digits"), "--examples", "20"]
    monkeypatch.setattr("sys.argv", ["explore", str(path), *digits, "--out", str(out)])
    program.main()
    assert out.stat().st_size < page.MOST_BYTES
    assert header(out.read_text())["meanings"]
