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
from capsnet.reading.recognition import answer, load_reader, read
from capsnet.tracking import ANSWER, track
from capsnet.tracking.store import ENVIRONMENT

SIZES = {"image_size": 36, "conv_channels": 4, "primary_types": 2, "decoder_sizes": [8]}


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
    ours = [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_", "PYTHON"))]
    with pytest.MonkeyPatch.context() as patch:
        for name in ours:
            patch.delenv(name)
        alone = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1", "PWD": str(root)}
        environment = os.environ | alone | {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
        for name, value in ENVIRONMENT.items():  # restored afterwards
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_URI", environment["MLFLOW_TRACKING_URI"])
        with track("train", "pairs", parameters={}, configuration={}) as tracker:
            tracker.checkpoint(weights)
            tracker.model(weights, validation_error=41.5, num_digits=100)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    words = "models serve -m models:/capsnet-pairs@champion --env-manager local -p"
    command = [sys.executable, "-m", "mlflow", *words.split(), port]
    with open(root / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True
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


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def records(*images: object) -> str:
    return json.dumps({"dataframe_records": [{"image": image} for image in images]})


def test_a_picture_is_answered_as_the_program_answers(server, weights, picture):
    """As JSON and in a table: the same lengths up to their last decimal, and the fields of the
    signature.
    """
    image, reader = picture.read_bytes(), load_reader(weights)
    wanted = answer(read(reader, read_handwriting(image)), reader)
    table = f"image\n{in_base64(image)}\n"
    for body, kind in ((records(in_base64(image)), "application/json"), (table, "text/csv")):
        status, answers = post(server[0], body, kind)
        [found] = answers["predictions"]
        assert status == 200 and [*found] == [*ANSWER]
        np.testing.assert_allclose(found.pop("lengths"), wanted["lengths"], atol=2e-4)
        assert found == {name: value for name, value in wanted.items() if name != "lengths"}


def test_bad_requests_are_the_senders_mistake_and_cost_no_memory(server, picture):
    """No picture, a bomb, broken JSON, another column; the message names the row."""
    good, file = in_base64(picture.read_bytes()), io.BytesIO()
    status, answer = post(server[0], records(good, "not base64!"))
    assert status == 400 and "row 1: the image is not base64" in answer["message"]
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    images = ["", in_base64(b"no picture"), in_base64(file.getvalue()), None, 5]
    bodies = [*map(records, images), "{", "[]", '{"dataframe_records": 3}', ""]
    bodies += ['{"dataframe_records": [{"picture": "abc"}]}']
    statuses, held = set(), []
    for n in range(60):
        statuses.add(post(server[0], bodies[n % len(bodies)])[0])
        if n in (19, 59):
            process = psutil.Process(server[1].pid)
            processes = [process, *process.children(recursive=True)]
            held.append(sum(each.memory_info().rss for each in processes))
    assert statuses <= {400, 422}
    assert 50e6 < held[1] < 1.1 * held[0] + 20e6, held
    assert post(server[0], records(good))[0] == 200


def test_data_urls_and_wrapped_lines_are_base64_too():
    data = bytes(range(256))
    assert serving.decoded(f"data:image/png;base64,{in_base64(data)}") == data
    assert serving.decoded(base64.encodebytes(data).decode()) == data
