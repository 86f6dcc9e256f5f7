"""The registered model answers over HTTP on loopback, as `mlflow models serve` starts it."""

import base64
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
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from capsnet import checkpoint
from capsnet.nn.convnet import ConvNet
from capsnet.reading import serving
from capsnet.reading.handwriting import read_handwriting
from capsnet.reading.recognition import load_reader, read
from capsnet.tracking import ENVIRONMENT, track

SIZES = {"image_size": 36, "conv_channels": 4, "primary_types": 2, "decoder_sizes": [8]}


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A network for pairs. It does not route: the kernels would compile for seconds."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "pairs.safetensors"
    known = {"arguments": SIZES, "validation_error": 41.5, "num_digits": 2}
    checkpoint.save(ConvNet(**SIZES), path, network="convnet", **known)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory, weights):
    """Address and process. It runs elsewhere, without this repository and without a network."""
    root = tmp_path_factory.mktemp("root")
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("MLFLOW_", "DVC_", "PYTHON"))}
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(kept):
            patch.delenv(name)
        for name, value in (ENVIRONMENT | {"MLFLOW_TRACKING_URI": ""}).items():  # restored
            patch.setenv(name, value)
        patch.setenv("DVC_ROOT", str(root))
        with track("train", "pairs", parameters={}) as tracker:
            tracker.model(weights)
    kept |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    kept |= {"no_proxy": "127.0.0.1", "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
    kept |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PWD": str(root)}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    words = "models serve -m models:/capsnet-pairs@latest --env-manager local -p"
    command = [sys.executable, "-m", "mlflow", *words.split(), port]
    with open(root / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=root, env=kept, stdout=log, stderr=log, start_new_session=True
        )
    for _ in range(600):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
            break
        assert process.poll() is None, (root / "log").read_text()
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}/invocations", process
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(30)


def post(url: str, body: str, kind: str = "application/json") -> tuple[int, dict]:
    """Status and answer."""
    request = urllib.request.Request(url, body.encode(), {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def records(*images: object) -> str:
    return json.dumps({"dataframe_records": [{"image": image} for image in images]})


def test_a_picture_is_answered_as_the_program_answers(server, weights, picture):
    """As JSON and in a table: the same lengths up to the last digits of a float32."""
    image = picture.read_bytes()
    wanted = read(load_reader(weights), read_handwriting(image))
    table = f"image\n{in_base64(image)}\n"
    for body, kind in ((records(in_base64(image)), "application/json"), (table, "text/csv")):
        status, answers = post(server[0], body, kind)
        [answer] = answers["predictions"]
        assert (status, answer["digits"]) == (200, list(wanted.digits))
        np.testing.assert_allclose(answer["lengths"], wanted.lengths, rtol=1e-4, atol=1e-6)
        assert answer["rejected"] == wanted.rejected
        assert (answer["error"], answer["error_source"]) == (41.5, "validation")


@pytest.mark.parametrize(
    ("image", "reason"),
    [("not base64!", "is not base64"), (in_base64(b"no picture"), "a format that Pillow knows")],
)
def test_a_bad_picture_is_an_error_with_its_row(server, picture, image, reason):
    status, answer = post(server[0], records(in_base64(picture.read_bytes()), image))
    assert status == 400 and "row 1: " in answer["message"] and reason in answer["message"]


def test_bad_requests_cost_no_memory(server, picture):
    """Each is the sender's mistake: no picture, a bomb, broken JSON, another column."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    images = ["", "not base64!", in_base64(b"x" * 1000), in_base64(file.getvalue()), None, 5]
    bodies = [*map(records, images), "{", "[]", '{"dataframe_records": 3}', ""]
    bodies += [json.dumps({"dataframe_records": [{"picture": "abc"}]})]
    statuses, held = set(), []
    for n in range(220):
        statuses.add(post(server[0], bodies[n % len(bodies)])[0])
        if n in (43, 219):
            process = psutil.Process(server[1].pid)
            processes = [process, *process.children(recursive=True)]
            held.append(sum(each.memory_info().rss for each in processes))
    assert statuses <= {400, 422}
    assert 50e6 < held[1] < 1.1 * held[0] + 20e6, held
    assert post(server[0], records(in_base64(picture.read_bytes())))[0] == 200


def test_data_urls_and_wrapped_lines_are_base64_too():
    data = bytes(range(256))
    assert serving.decoded(f"data:image/png;base64,{in_base64(data)}") == data
    assert serving.decoded(base64.encodebytes(data).decode()) == data
