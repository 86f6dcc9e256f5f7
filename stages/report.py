"""Stage `report`: everything that was measured -> reports/summary.md, beside the paper's table."""

import argparse
import json
import os
from pathlib import Path

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
SOURCES = {"mnist": "MNIST", "scikit-learn": "scikit-learn's 1,797 digits"}
FIGURES = {  # file within the run's folder -> what to see
    "figures/training.png": "Training",
    "figures/reconstructions.png": "Test examples and what the capsules reconstruct",
    "figures/affine.png": "Test digits under random affine transformations",
    "figures/overlap.png": "Error against the overlap of the two digits",
    "figures/pairs.png": "Error by pair of digits",
    "figures/confusion.png": "Confusion (where both digits of a pair were missed, which stands for "
    "which is a guess)",
    "perturbation/overview.png": "The most telling dimension of each digit",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder with a folder per run")
    parser.add_argument("--summary", type=Path, required=True, help="summary to write, Markdown")
    parser.add_argument("--metrics", type=Path, required=True, help="all metrics to write, JSON")
    arguments = parser.parse_args()
    params = load_params()
    metrics = {name: read_metrics(arguments.runs / name, name) for name in params.runs}
    write_json(arguments.metrics, metrics)
    write_text(
        arguments.summary, summary(params, metrics, arguments.runs, arguments.summary.parent)
    )
    print(results_table(params, metrics))


def read_metrics(folder: Path, name: str) -> dict[str, object]:
    """The metrics of training and evaluation together."""
    merged: dict[str, object] = {}
    for file in ("metrics.json", "training.json"):
        merged |= json.loads((folder / file).read_text())[name]
    return merged


def summary(params: Params, metrics: dict[str, dict], runs: Path, here: Path) -> str:
    source = SOURCES[params.chosen_budget.source]
    parts = [
        f"# Results at budget `{params.budget}`, on {source}, seed {params.seed}",
        "Written by `dvc repro`; every number below was measured by it. Test error in %, with the "
        "95 % Wilson interval of the one network that was trained; on MultiMNIST an example is "
        "right only if both digits are.",
        results_table(params, metrics),
        "Paper: its Table 1 for the same network and iterations; its MNIST figures are means of "
        "three trainings, its MultiMNIST test has 10M pairs.",
        "## Training",
        training_table(params, metrics),
        "Times and memory are those of the machine that ran it; images/s is the median over the "
        "curve. The validation digits are cut from the training split.",
    ]
    for name, settings in params.runs.items():
        parts.append(f"## {name}: {settings.network} on {settings.task}")
        if "affine" in metrics[name]:
            parts.append(affine_sentence(params, metrics[name]))
        for file, caption in FIGURES.items():
            if (runs / name / file).exists():
                parts.append(picture(runs / name / file, caption, here))
        parts += [perturbation_grids(runs / name, here), links(runs / name, here)]
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
        comparable = params.chosen_budget.source == "mnist" and (agreement or not capsnet)
        rows.append(
            {
                "run": name,
                "network": settings.network,
                "task": settings.task,
                "routing": routing_of(params) if capsnet else "-",
                "reconstruction": ("yes" if reconstruction else "no") if capsnet else "-",
                "test error %": f"**{measured['error']:.2f}**",
                "95 % interval": f"{measured['error_low']:.2f} to {measured['error_high']:.2f}",
                "examples": f"{measured['examples']:,}",
                "paper %": PAPER.get(key, "-") if comparable else "-",
            }
        )
    return markdown(rows)


def routing_of(params: Params) -> str:
    if params.routing.coupling == "agreement":
        return f"agreement, r = {params.routing.iterations}"
    return params.routing.coupling


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
                "peak host memory MiB": f"{training['peak_memory_mib']:.0f}",
                "final loss": f"{training['loss']:.4f}",
                "validation error %": "-" if validation is None else f"{validation:.2f}",
            }
        )
    return markdown(rows)


def affine_sentence(params: Params, measured: dict) -> str:
    affine, settings = measured["affine"], params.evaluate
    degrees, share = settings.affine_degrees, settings.affine_translate
    return (
        f"Under RandomAffine(degrees={degrees:g}, translate=({share:g}, {share:g})) the test error "
        f"is {affine['error']:.2f} % ({affine['error_low']:.2f} to {affine['error_high']:.2f}); "
        f"without, {measured['error']:.2f} %."
    )


def picture(path: Path, caption: str, here: Path) -> str:
    return f"### {caption}\n\n![{caption}]({_relative(path, here)})"


def perturbation_grids(folder: Path, here: Path) -> str:
    """Figure 4 of every digit, folded away: ten large grids."""
    grids = sorted((folder / "perturbation").glob("digit_*.png"))
    if not grids:
        return ""
    pictures = [f"![{grid.stem.replace('_', ' ')}]({_relative(grid, here)})" for grid in grids]
    head = "<details><summary>Every dimension of every digit (Figure 4)</summary>"
    return "\n\n".join([head, *pictures, "</details>"])


def links(folder: Path, here: Path) -> str:
    names = ("metrics.json", "training.csv", "errors.csv", "confusion.csv", "perturbation.csv")
    return "Numbers: " + ", ".join(f"[{name}]({_relative(folder / name, here)})" for name in names)


def _relative(path: Path, here: Path) -> str:
    return Path(os.path.relpath(path, here)).as_posix()


def markdown(rows: list[dict[str, str]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    run(main, "report")
