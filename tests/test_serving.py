"""The registered model answers: loaded by its alias, and over HTTP from a server on loopback."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from capsnet import registry
from capsnet.checkpoint import save
from capsnet.nn.capsnet import CapsNet
from capsnet.tracking import track

SIZES = {"image_size": 28, "conv_channels": 8, "primary_types": 2, "decoder_sizes": [16]}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A repository root whose store holds a tiny network, registered twice as capsnet-tiny."""
    folder = tmp_path_factory.mktemp("root")
    torch.manual_seed(0)
    save(CapsNet(**SIZES), folder / "tiny.safetensors", network="capsnet", arguments=SIZES)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_"))]:
            patch.delenv(name)
        patch.setenv("DVC_ROOT", str(folder))
        for _ in range(2):
            with track("train", "tiny", parameters={"a": 1}) as tracker:
                tracker.register(folder / "tiny.safetensors")
    return folder


def picture() -> str:
    image = Image.new("L", (90, 120), 255)
    image.paste(0, (40, 20, 52, 100))
    file = io.BytesIO()
    image.save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def environment(root: Path) -> dict[str, str]:
    """Nothing of this checkout is importable: the model brings its own code."""
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    return kept | own | {"PATH": path}


def test_each_training_is_a_version_and_latest_is_the_newest(root):
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    newest = client.get_model_version_by_alias("capsnet-tiny", "latest")
    assert str(newest.version) == "2" and "dvc repro train@tiny" in newest.description
    assert "reports/runs/tiny/" in client.get_registered_model("capsnet-tiny").description
    run = client.get_run(newest.run_id)
    assert run.data.tags["model.version"] == "2" and "incomplete" not in run.data.tags
    names = {file.path for file in client.list_artifacts(newest.run_id, "model")}
    assert {"model/MLmodel", "model/serving.py", "model/input_example.json"} <= names
    folder = Path(run.info.artifact_uri.removeprefix("file://")) / "model"
    files = [file.name for file in folder.rglob("*") if file.is_file()]
    assert "tiny.safetensors" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pyc"))]


def test_serving_needs_only_pinned_packages():
    pins = registry.requirements()
    assert len(pins) == len(registry.SERVED) and all("==" in pin for pin in pins)


def test_predict_from_the_command_line(root, tmp_path):
    """mlflow models predict, with a table of two pictures, the second of them broken."""
    table = pd.DataFrame({"image": [picture(), "no picture"]})
    request = {"dataframe_split": table.to_dict(orient="split")}
    (tmp_path / "in.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "mlflow", "models", "predict"]
    command += ["-m", "models:/capsnet-tiny@latest", "--env-manager", "local"]
    command += ["-i", str(tmp_path / "in.json"), "-o", str(tmp_path / "out.json")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(root), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert len(first["digits"]) == 1 and len(first["lengths"]) == 10 and first["error"] == ""
    assert second["digits"] == [] and "no base64" in second["error"]


def test_a_server_answers_a_posted_image(root, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/capsnet-tiny@latest", "-h", "127.0.0.1", "-p", str(port)]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment(root), stdout=log, stderr=log,
            start_new_session=True
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        body = json.dumps({"dataframe_records": [{"image": picture()}]}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            [answer] = json.load(response)["predictions"]
        assert len(answer["digits"]) == 1 and answer["error"] == ""
        assert all(0 <= length < 1 for length in answer["lengths"])
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())
