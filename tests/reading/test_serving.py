"""The registered model answers over HTTP on loopback, as `mlflow models serve` starts it."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image, ImageDraw

from capsnet import checkpoint
from capsnet.nn.capsnet import CapsNet
from capsnet.reading import serving
from capsnet.reading.handwriting import read_handwriting
from capsnet.reading.recognition import load_reader, read
from capsnet.tracking import ENVIRONMENT, track

SIZES = {"image_size": 36, "conv_channels": 4, "primary_types": 2, "decoder_sizes": [8]}
SECONDS = 120  # for a slow machine; 10 are usual


def picture() -> bytes:
    image = Image.new("RGB", (90, 120), "white")
    ImageDraw.Draw(image).line([(30, 20), (60, 20), (40, 100)], fill="navy", width=9)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "pairs.safetensors"
    known = {"arguments": SIZES, "validation_error": 41.5, "num_digits": 2}
    checkpoint.save(CapsNet(**SIZES), path, network="capsnet", **known)
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory, weights) -> dict[str, str]:
    """Of a user's shell beside a store in which the model is registered; not the repository."""
    root = tmp_path_factory.mktemp("root")
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("MLFLOW_", "DVC_", "PYTHON"))}
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(kept):
            patch.delenv(name)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets it; restored afterwards
        patch.setenv("DVC_ROOT", str(root))
        with track("train", "pairs", parameters={}) as tracker:
            tracker.model(weights)
    no_network = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    no_network["no_proxy"] = "127.0.0.1"
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}"}
    return kept | no_network | store | {"MLFLOW_DISABLE_TELEMETRY": "true", "PWD": str(root)}


@pytest.fixture(scope="module")
def address(environment, tmp_path_factory):
    """Where `mlflow models serve` listens; the test's own process group is ended with it."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
    except OSError as error:
        pytest.skip(f"no socket can be opened on loopback: {error}")
    folder = tmp_path_factory.mktemp("elsewhere")
    words = "models serve -m models:/capsnet-pairs@latest --env-manager local -p"
    command = [sys.executable, "-m", "mlflow", *words.split(), str(port)]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, folder / "log")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def post(url: str, body: str, kind: str) -> list[dict]:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.loads(answer.read())["predictions"]


@pytest.mark.parametrize("kind", ["application/json", "text/csv"])
def test_an_image_posted_is_answered_as_the_program_answers(address, weights, kind):
    """Once as JSON, twice in a table: the same lengths to the last digits of a float32."""
    body = json.dumps({"dataframe_records": [{"image": in_base64(picture())}]})
    if kind == "text/csv":
        body = pd.DataFrame({"image": [in_base64(picture())] * 2}).to_csv(index=False)
    answers = post(address, body, kind)
    wanted = read(load_reader(weights), read_handwriting(picture()))
    assert len(answers) == (2 if kind == "text/csv" else 1)
    for answer in answers:
        assert answer["digits"] == list(wanted.digits)
        np.testing.assert_allclose(answer["lengths"], wanted.lengths, rtol=1e-4, atol=1e-6)
        assert answer["rejected"] == wanted.rejected
        assert (answer["error"], answer["error_source"]) == (41.5, "validation")


@pytest.mark.parametrize(
    ("image", "reason"),
    [("not base64!", "is not base64"), (in_base64(b"no picture"), "a format that Pillow knows")],
)
def test_what_cannot_be_read_is_the_senders_mistake(address, image, reason):
    body = json.dumps({"dataframe_records": [{"image": in_base64(picture())}, {"image": image}]})
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, body, "application/json")
    with caught.value as answer:
        assert answer.code == 400
        message = json.loads(answer.read())["message"]
    assert "row 1: " in message and reason in message


def test_after_500_bad_requests_the_server_answers_in_no_more_memory(address):
    """Each is the sender's mistake (4xx): pictures that are none, bombs, broken JSON."""
    bomb = Image.new("1", (20_000, 20_000))
    file = io.BytesIO()
    bomb.save(file, "PNG")
    images = ["", "not base64!", in_base64(b"x" * 1000), in_base64(file.getvalue()), None, 5]
    bodies = [json.dumps({"dataframe_records": [{"image": image}]}) for image in images]
    bodies += ["{", "[]", '{"dataframe_records": 3}', ""]
    port = int(address.split(":")[2].split("/")[0])
    codes, held = [], []
    for n in range(500):
        try:
            post(address, bodies[n % len(bodies)], "application/json")
        except urllib.error.HTTPError as error:
            with error:
                codes.append(error.code)
        if n in (99, 499):
            held.append(memory_of_listener(port))
    assert len(codes) == 500 and set(map(str, codes)) <= {"400", "422"}, set(codes)
    assert 50e6 < held[1] < 1.1 * held[0] + 20e6, held
    body = json.dumps({"dataframe_records": [{"image": in_base64(picture())}]})
    assert len(post(address, body, "application/json")) == 1


def memory_of_listener(port: int) -> int:
    """Bytes that the serving processes hold: who was started for this port, and its children."""
    starters = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(port) in (process.info["cmdline"] or [])
    ]
    processes = {child for starter in starters for child in starter.children(recursive=True)}
    return sum(process.memory_info().rss for process in processes | set(starters))


def test_a_table_without_the_column_is_refused(address):
    body = json.dumps({"dataframe_records": [{"picture": "abc"}]})
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, body, "application/json")
    with caught.value as answer:
        assert answer.code == 400


def test_data_urls_and_wrapped_lines_are_base64_too():
    data = picture()
    wrapped = base64.encodebytes(data).decode()
    assert serving.decoded(f"data:image/png;base64,{in_base64(data)}") == data
    assert serving.decoded(wrapped) == data
