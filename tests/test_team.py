"""One MLflow server for a team, the real one: on PostgreSQL where Debian's package is installed."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MEMBER = """
import sys
from pathlib import Path
from capsnet.tracking import track
name = sys.argv[1]
Path(f"{name}.safetensors").write_bytes(name.encode())
with track("train", name, parameters={"routing": {"iterations": 3}}) as tracker:
    for step in range(5):
        tracker.metrics({"loss": 1 / (1 + step)}, step=step)
    tracker.checkpoint(Path(f"{name}.safetensors"))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def as_postgres(folder: Path) -> dict[str, str]:
    """Whose PostgreSQL's programs are to be: it refuses to be root."""
    if os.getuid() != 0:
        return {}
    for place in (folder, *folder.parents):  # pytest lets nobody else in
        with suppress(PermissionError):
            place.chmod(place.stat().st_mode | 0o711)
    shutil.chown(folder, "postgres")
    return {"user": "postgres", "group": "postgres"}


@contextmanager
def database(folder: Path):
    """The address of an empty database of its own."""
    found = [Path(each).parent for each in sorted(glob("/usr/lib/postgresql/*/bin/initdb"))]
    if not found or sys.platform != "linux":
        warnings.warn("no PostgreSQL here: the server is tested on SQLite", stacklevel=1)
        yield f"sqlite:///{folder}/team.db"
        return
    data, port, programs = folder / "postgres", free_port(), found[-1]
    data.mkdir()
    owner = as_postgres(data)

    def call(program: str, *options: str) -> None:
        subprocess.run([str(programs / program), *options], check=True, cwd=data,
                       stdout=subprocess.DEVNULL, **owner)  # fmt: skip

    call("initdb", "-D", str(data / "db"), "-U", "capsnet", "--auth=trust")
    settings = f"-p {port} -k {data} -h 127.0.0.1"
    call("pg_ctl", "-D", str(data / "db"), "-o", settings, "-l", str(data / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg2://capsnet@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", str(data / "db"), "-m", "immediate", "stop")


@pytest.fixture
def server(tmp_path):
    """The address of a server that keeps the artifacts, as README starts it."""
    with database(tmp_path) as store:
        port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
        command += ["--artifacts-destination", str(tmp_path / "kept"), "--port", str(port)]
        command += ["--allowed-hosts", f"server:{port},127.0.0.1:{port}"]
        with open(tmp_path / "server.log", "w") as log:
            process = subprocess.Popen([*command, "--workers", "1"], cwd=tmp_path, stdout=log,
                                       stderr=log, start_new_session=True)  # fmt: skip
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
            while True:
                with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
                assert process.poll() is None and time.monotonic() < deadline, (
                    tmp_path / "server.log"
                ).read_text()
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def answer(server: str, host: str) -> int:
    """The status of a request by one who calls the server by this name."""
    port = server.rpartition(":")[2]
    place = f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name=capsnet"
    request = urllib.request.Request(place, headers={"Host": f"{host}:{port}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as found:
            return found.status
    except urllib.error.HTTPError as error:
        return error.code


def test_two_members_log_to_one_server(server, tmp_path):
    """At once, from folders of their own: runs, curves and weights are with the server alone."""
    members = {}
    for name in ("anna", "ben"):
        folder = tmp_path / name
        folder.mkdir()
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": server,
            "PYTHONPATH": str(ROOT),
            "DVC_ROOT": str(folder),
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
        }
        members[name] = subprocess.Popen(
            [sys.executable, "-c", MEMBER, name], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    for name, process in members.items():
        told = process.communicate(timeout=120)[0]
        assert process.returncode == 0 and not told, told
        assert {path.name for path in (tmp_path / name).iterdir()} == {f"{name}.safetensors"}

    assert [answer(server, host) for host in ("server", "elsewhere")] == [200, 403]

    from mlflow import MlflowClient

    client = MlflowClient(server)
    [experiment] = [one for one in client.search_experiments() if one.name == "capsnet"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == members.keys()
    for name, run in runs.items():
        assert run.info.status == "FINISHED" and run.data.params["routing.iterations"] == "3"
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 5
        place = f"checkpoint/{name}.safetensors"
        there = client.download_artifacts(run.info.run_id, place, str(tmp_path))
        assert Path(there).read_bytes() == name.encode()
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
