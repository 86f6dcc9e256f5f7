"""Everything that waits for a GPU, the most telling first, in pieces: `python -m stages.gpu`.

The routing kernel against the reference, the benchmark, then the runs of study/gpu.yaml one after
the other, each trained, rounded to 16 bits, tested as it then is and packed into files of at most
16 MiB. A call ends in order after --minutes, and the next one goes on. On the machine that has the
study, `--take FOLDER` checks what was packed and puts it there.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pandas as pd
import torch

from capsnet import checkpoint
from capsnet.benchmark import kernels
from capsnet.config import load, resolve
from capsnet.data.transforms import AFFNIST_SIZE
from capsnet.device import choose_device, describe
from capsnet.files import replace_file
from capsnet.params import Params
from capsnet.tracking import track
from capsnet.tracking.tags import commit
from capsnet.tracking.values import md5
from stages import evaluate, score
from stages.command import run
from stages.inputs import ROOT, inputs_of
from stages.packing import digest, pack, round_off, unpacked

LEAST_SECONDS = 45  # a piece of work is not begun with less time left
PROFILED = 0.6  # a step that reaches a smaller share of a plain product's speed leaves a profile
SMALL = ["--batch-size", "2", "--rounds", "1", "--conv-channels", "4", "--primary-types", "1"]
OF_THE_MACHINE = {"torch", "numba", "routing.implementation"}  # may differ where runs are taken
MEASURED = ("capsnet/nn", "capsnet/benchmark", "capsnet/device.py")  # code behind the numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words = "runs to train (default: study/gpu.yaml)"
    parser.add_argument("--also", type=Path, default=Path("study/gpu.yaml"), help=words)
    parser.add_argument("--digits", type=Path, default=Path("data/digits"))
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder (default: gpu)")
    parser.add_argument("--minutes", type=float, default=9.5, help="to work for (default: 9.5)")
    words = "names, comma between: these alone, in this order (default: all)"
    parser.add_argument("--runs", type=lambda names: names.split(","), metavar="NAMES", help=words)
    parser.add_argument("--small", action="store_true", help="kernels and benchmark at toy size")
    parser.add_argument("--take", type=Path, metavar="FOLDER", help="of packed runs: take them in")
    arguments = parser.parse_args()
    params = load(override=arguments.also)
    if arguments.take is not None:
        take_all(params, arguments)
        return
    names = arguments.runs or list(params.runs)
    for name in names:
        if name not in params.runs:
            raise ValueError(f"--runs: got {name!r}, wanted some of {', '.join(params.runs)}")
    deadline, failed = monotonic() + 60 * arguments.minutes, []
    try:
        measure(params, arguments, deadline)
        for name in names:
            try:
                work(params, name, arguments, deadline)
            except ValueError as error:  # the others may do
                print(f"{name}: {error}", file=sys.stderr)
                failed.append(name)
    except TimeoutError:
        print(f"gpu: {arguments.minutes:g} minutes are over; start again to go on")
        return
    if failed:
        raise ValueError(f"all else is done, but not {', '.join(failed)}: see above")
    print(f"gpu: all is done: {arguments.out}")


def measure(params: Params, arguments: argparse.Namespace, deadline: float) -> None:
    """Kernel and benchmark, once for this code and card; neither if the kernel is not to be used.
    Raises ValueError if it is wrong: nothing more is worth the time then.
    """
    if params.routing.implementation == "reference":
        print("kernel: neither compared nor measured: routing.implementation is reference")
        return
    folder = arguments.out / "measured" / digest(measured(arguments.small))[:16]
    table, small = folder / "kernels.csv", ["--small"] if arguments.small else []
    if not kernels.is_whole(table, small=arguments.small):
        start(["capsnet.benchmark.kernels", "--out", table, *small], deadline)
    worst = kernels.worst(table)
    print(f"kernel: differs from the reference by at most {worst:.1e} of the largest number")
    if not worst < kernels.LIMIT:
        raise ValueError(
            f"{table}: wanted less than {kernels.LIMIT:g}: to go on without the kernel, set "
            f"routing.implementation=reference"
        )
    if not (folder / "benchmark.md").exists():
        command = ["capsnet.benchmark", "--out", folder, "--profile", PROFILED]
        start([*command, *(SMALL if arguments.small else [])], deadline)


def measured(small: bool) -> dict[str, str]:
    """What kernel and benchmark depend on."""
    code = [ROOT / path for path in MEASURED]
    files = [file for path in code for file in ([path] if path.is_file() else path.rglob("*.py"))]
    about = {file.relative_to(ROOT).as_posix(): md5(file) for file in files}
    card = describe(choose_device())
    return about | {"card": card, "torch": str(torch.__version__), "small": str(small)}


def work(params: Params, name: str, arguments: argparse.Namespace, deadline: float) -> None:
    """One run as far as the time goes: train, round, test, pack."""
    packed = arguments.out / "runs" / f"{name}.json"
    of_training, of_test = inputs_of_both(params, name, arguments)
    if packed.exists() and json.loads(packed.read_text())["inputs"] == of_training | of_test:
        return
    # What other code or parameters made is not gone on with.
    folder = arguments.out / "work" / f"{name}-{digest(of_training)[:16]}"
    of_stage = [name, "--also", arguments.also, "--digits", arguments.digits]
    trained, model = folder / "trained.safetensors", folder / "network.safetensors"
    files = {"curve": folder / "training.csv", "metrics": folder / "training.json"}
    if not all(path.exists() for path in (trained, *files.values())):
        start(["stages.train", *of_stage, *options(files | {"model": trained})], deadline)
    round_off(trained, model)
    tested, stage = folder / digest(of_test)[:16], stage_of_test(params, name)
    tables = {table: tested / f"{table}.csv" for table in score.TABLES}
    outputs = {"model": model, "metrics": tested / "metrics.json"} | tables
    if stage == "evaluate":
        tables |= {table: tested / f"{table}.csv" for table in evaluate.TABLES}
        outputs |= tables | {"curve": files["curve"], "figures": tested / "figures"}
    texts = [outputs["metrics"], *tables.values()]
    if not all(path.exists() for path in texts):
        start([f"stages.{stage}", *of_stage, *options(outputs)], deadline)
    texts += files.values()
    about = {
        "inputs": of_training | of_test,
        "commit": commit(),
        "hardware": describe(choose_device()),
    }
    pack(name, model, texts, about, packed)
    print(f"{name}: packed as {packed}")


def stage_of_test(params: Params, name: str) -> str:
    """For affNIST with all tables, of which robustness is one."""
    return "evaluate" if resolve(params, name).task.image_size == AFFNIST_SIZE else "score"


def inputs_of_both(params: Params, name: str, arguments: argparse.Namespace) -> list[dict]:
    """Of the training and of the test."""
    return [
        inputs_of(stage, name, arguments.digits, arguments.also)
        for stage in ("train", stage_of_test(params, name))
    ]


def options(values: dict[str, Path]) -> list[str | Path]:
    return [part for key, value in values.items() for part in (f"--{key.replace('_', '-')}", value)]


def start(command: list, deadline: float) -> None:
    """`python -m command`, ended when the time is over: then, or if too little is left to begin,
    TimeoutError. Raises ValueError if it fails; it has said why.
    """
    if deadline - monotonic() < LEAST_SECONDS:
        raise TimeoutError
    process = subprocess.Popen([sys.executable, "-u", "-m", *map(str, command)])
    try:
        process.wait(deadline - monotonic())
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        process.terminate()
        process.wait()
    if process.returncode != 0:
        raise ValueError(f"{command[0]} ended with exit code {process.returncode}")


def take_all(params: Params, arguments: argparse.Namespace) -> None:
    """Every packed run that is whole and was trained and tested with this code, these parameters
    and this data. Raises ValueError with what was refused; the others are taken.
    """
    found = sorted(arguments.take.glob("*.json"))
    if not found:
        raise ValueError(f"{arguments.take}: no packed run, wanted <run>.json and its .bin files")
    refused = []
    for path in found:
        try:
            take(params, path, arguments)
        except ValueError as error:
            refused.append(str(error))
    if refused:
        raise ValueError("\ngpu: ".join(refused))


def take(params: Params, path: Path, arguments: argparse.Namespace) -> None:
    about, data = unpacked(path)
    name = about["run"]
    if name not in params.runs:
        raise ValueError(f"{path}: run {name!r} is not in {arguments.also}")
    of_training, of_test = inputs_of_both(params, name, arguments)
    here, inputs = of_training | of_test, about["inputs"]
    differ = sorted(
        key
        for key in (inputs.keys() | here.keys()) - OF_THE_MACHINE
        if inputs.get(key) != here.get(key)
    )
    if differ:
        some = ", ".join(differ[:4]) + ", ..." * (len(differ) > 4)
        raise ValueError(
            f"{path}: made with other {some}: take it at commit {about['commit']}, with the "
            f"params.yaml of then"
        )
    folder, model = Path("reports/study/runs") / name, Path("models/study") / f"{name}.safetensors"
    kept = {key: about[key] for key in ("commit", "hardware", "sha256", "seal", "inputs")}
    origin = json.dumps(kept, indent=1) + "\n"
    if model.exists() and md5(model) == about["network_md5"] and there(folder, about, origin):
        print(f"{name}: is here already")
        return
    halves = model.with_suffix(".halves")
    replace_file(halves, data)
    told, tensors = checkpoint.read(halves)
    halves.unlink()
    checkpoint.write(model, told, {key: each.float() for key, each in tensors.items()})
    if md5(model) != about["network_md5"]:
        raise ValueError(f"{path}: the network is not the one that was tested")
    for file, text in about["files"].items():
        replace_file(folder / Path(file).name, text.encode())
    replace_file(folder / "origin.json", origin.encode())
    log(name, folder, model, params, about)
    print(f"{name}: taken from {path}")


def there(folder: Path, about: dict, origin: str) -> bool:
    """Whether this very run was taken before, to its end."""
    files = {Path(file).name: text for file, text in about["files"].items()}
    files["origin.json"] = origin
    paths = {folder / file: text for file, text in files.items()}
    return all(path.exists() and path.read_text() == text for path, text in paths.items())


def log(name: str, folder: Path, model: Path, params: Params, about: dict) -> None:
    """One run in MLflow, as if it had been trained here, but for where it was."""
    with track("train", name, parameters=resolve(params, name).model_dump()) as tracker:
        tracker.tag("taken_from", f"{about['hardware']}, commit {about['commit']}")
        for row in pd.read_csv(folder / "training.csv").to_dict("records"):
            tracker.metrics(row, step=int(row["examples"]))
        tracker.metrics(json.loads((folder / "metrics.json").read_text())[name])
        tracker.artifact(folder)
        tracker.checkpoint(model)


if __name__ == "__main__":
    run(main, "gpu")
