"""Stage `report`: everything that was measured -> reports/summary.md, beside the paper's table."""

import argparse
import json
import os
from pathlib import Path

import pandas as pd

from capsnet import figures
from capsnet.params import Params, load_params
from stages.command import run
from stages.output import write_json, write_text

# Table 1 of the paper: test error in percent by (network, routing iterations, with reconstruction,
# task).
PAPER = {
    ("baseline", None, None, "mnist"): "0.39",
    ("baseline", None, None, "multimnist"): "8.1",
    ("capsnet", 1, False, "mnist"): "0.34 ± 0.032",
    ("capsnet", 1, True, "mnist"): "0.29 ± 0.011",
    ("capsnet", 1, True, "multimnist"): "7.5",
    ("capsnet", 3, False, "mnist"): "0.35 ± 0.036",
    ("capsnet", 3, True, "mnist"): "0.25 ± 0.005",
    ("capsnet", 3, True, "multimnist"): "5.2",
}
FIGURES = {  # file within the run's folder -> what to see
    "figures/reconstructions.png": "Test examples and what the capsules reconstruct",
    "figures/affine.png": "Test digits under random affine transformations",
    "figures/overlap.png": "Error against the overlap of the two digits",
    "figures/pairs.png": "Error by pair of digits",
    "figures/confusion.png": "Confusion",
    "perturbation/overview.png": "The most telling dimension of each digit",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder with a folder per run")
    parser.add_argument("--summary", type=Path, required=True, help="summary to write, Markdown")
    parser.add_argument("--metrics", type=Path, required=True, help="all metrics to write, JSON")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    arguments = parser.parse_args()
    params = load_params()
    metrics = {name: read_metrics(arguments.runs / name, name) for name in params.runs}
    for name in params.runs:
        curve = pd.read_csv(arguments.runs / name / "training.csv")
        title = f"{name}: training loss and validation error"
        figures.training_curve(curve, arguments.figures / f"{name}_training.png", title=title)
    write_json(arguments.metrics, metrics)
    here = arguments.summary.parent
    write_text(arguments.summary, summary(params, metrics, arguments.runs, arguments.figures, here))
    print(results_table(params, metrics))


def read_metrics(folder: Path, name: str) -> dict[str, object]:
    """The metrics of training and evaluation together."""
    merged: dict[str, object] = {}
    for file in ("metrics.json", "training.json"):
        merged |= json.loads((folder / file).read_text())[name]
    return merged


def summary(params: Params, metrics: dict[str, dict], runs: Path, curves: Path, here: Path) -> str:
    budget = params.chosen_budget
    parts = [
        "# Results",
        f"Budget `{params.budget}`, digits from {budget.source}, seed {params.seed}. "
        f"Written by `dvc repro`; every number below was measured by it.",
        "Test error in %, with the 95 % Wilson interval of the one network that was trained. "
        "On MultiMNIST an example is right only if both digits are.",
        results_table(params, metrics),
        "The paper's networks were trained for longer: see `budgets` in params.yaml for what this "
        "budget shows a network. Its figures are means of three trainings (MNIST).",
        "## Training",
        training_table(params, metrics),
        "Times are those of the machine that ran it; images/s is the median over the curve.",
    ]
    for name, settings in params.runs.items():
        parts.append(f"## {name}: {settings.network} on {settings.task}")
        if "affine" in metrics[name]:
            parts.append(affine_sentence(params, metrics[name]))
        parts.append(picture(curves / f"{name}_training.png", "Training", here))
        for file, caption in FIGURES.items():
            if (runs / name / file).exists():
                parts.append(picture(runs / name / file, caption, here))
        parts.append(links(runs / name, here))
    return "\n\n".join(part for part in parts if part) + "\n"


def results_table(params: Params, metrics: dict[str, dict]) -> str:
    rows = []
    for name, settings in params.runs.items():
        measured, capsnet = metrics[name], settings.network == "capsnet"
        agreement = params.routing.coupling == "agreement"
        reconstruction = params.loss.reconstruction_weight > 0
        key = (settings.network, None, None, settings.task)
        if capsnet:
            key = ("capsnet", params.routing.iterations, reconstruction, settings.task)
        comparable = not capsnet or agreement
        rows.append(
            {
                "run": name,
                "network": settings.network,
                "task": settings.task,
                "routing": f"{params.routing.coupling}, {params.routing.iterations}"
                if capsnet
                else "-",
                "reconstruction": ("yes" if reconstruction else "no") if capsnet else "-",
                "test error %": f"**{measured['error']:.2f}**",
                "95 % interval": f"{measured['error_low']:.2f} to {measured['error_high']:.2f}",
                "examples": f"{measured['examples']:,}",
                "paper %": PAPER.get(key, "-") if comparable else "-",
            }
        )
    return markdown(rows)


def training_table(params: Params, metrics: dict[str, dict]) -> str:
    rows = []
    for name in params.runs:
        training = metrics[name]["training"]
        validation = training["validation_error"]
        rows.append(
            {
                "run": name,
                "parameters": f"{training['num_parameters']:,}",
                "images shown": f"{training['examples']:,}",
                "images/s": f"{training['images_per_second']:.0f}",
                "minutes": f"{training['seconds'] / 60:.1f}",
                "final loss": f"{training['loss']:.4f}",
                "validation error %": "-" if validation is None else f"{validation:.2f}",
            }
        )
    return markdown(rows)


def affine_sentence(params: Params, measured: dict) -> str:
    affine, settings = measured["affine"], params.evaluate
    return (
        f"Under RandomAffine(degrees={settings.affine_degrees:g}, "
        f"translate={settings.affine_translate:g}) the test error is {affine['error']:.2f} % "
        f"({affine['error_low']:.2f} to {affine['error_high']:.2f}); "
        f"without, {measured['error']:.2f} %."
    )


def picture(path: Path, caption: str, here: Path) -> str:
    return f"### {caption}\n\n![{caption}]({_relative(path, here)})"


def links(folder: Path, here: Path) -> str:
    names = ("metrics.json", "training.csv", "errors.csv", "confusion.csv", "perturbation.csv")
    files = [folder / name for name in names]
    files += sorted((folder / "perturbation").glob("digit_*.png"))
    return "More: " + ", ".join(f"[{path.name}]({_relative(path, here)})" for path in files)


def _relative(path: Path, here: Path) -> str:
    return Path(os.path.relpath(path, here)).as_posix()


def markdown(rows: list[dict[str, str]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    run(main, "report")
