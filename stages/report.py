"""Stage `report`: everything that was measured -> reports/summary.md, a short paper beside the
published one.

A section is a question; its figures are those of the leading runs, the first CapsNet of each task.
Every sentence is made from the numbers of this very run (`capsnet.report.sentences`).
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from capsnet import figures
from capsnet.figures.robustness import robustness_curves
from capsnet.params import Params, load_params, task_of
from capsnet.report.comparisons import controls
from capsnet.report.sentences import FINDINGS
from capsnet.report.tables import results_table, seeds_table, training_table
from stages.command import run
from stages.output import write_json, write_text

SOURCES = {"mnist": "MNIST", "scikit-learn": "scikit-learn's 1,797 digits"}
SECTIONS = {  # heading -> files within a run's folder
    "What the capsules reconstruct": ["figures/reconstructions.png"],
    "What each dimension of a capsule means": [
        "perturbation/overview.png",
        "perturbation/effects.png",
    ],
    "What routing does": ["figures/routing.png", "figures/couplings.png"],
    "Where the errors are": ["figures/overlap.png", "figures/pairs.png", "figures/confusion.png"],
    "Are lengths probabilities?": ["figures/calibration.png"],
    "Training": ["figures/training.png"],
}
AFFINE = "Under affine transformations"
TABLES = (
    "metrics.json",
    "training.csv",
    "errors.csv",
    "confusion.csv",
    "routing.csv",
    "robustness.csv",
    "calibration.csv",
    "counts.csv",
    "perturbation.csv",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder with a folder per run")
    parser.add_argument("--summary", type=Path, required=True, help="summary to write, Markdown")
    parser.add_argument("--metrics", type=Path, required=True, help="all metrics to write, JSON")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    arguments = parser.parse_args()
    params = load_params()
    metrics = {name: read_metrics(arguments.runs / name, name) for name in params.runs}
    write_json(arguments.metrics, metrics)
    parts = summary(params, metrics, arguments.runs, arguments.figures, arguments.summary.parent)
    write_text(arguments.summary, "\n\n".join(part for part in parts if part) + "\n")
    print(results_table(params, metrics))


def read_metrics(folder: Path, name: str) -> dict[str, object]:
    """The metrics of training, evaluation and perturbation together."""
    merged: dict[str, object] = {}
    for file in ("metrics.json", "training.json", "perturbation.json"):
        merged |= json.loads((folder / file).read_text())[name]
    return merged


def summary(
    params: Params, metrics: dict[str, dict], runs: Path, drawn: Path, here: Path
) -> Iterator[str]:
    source = SOURCES[params.chosen_budget.source]
    yield f"# Results at budget `{params.budget}`, on {source}, seed {params.seed}"
    yield abstract(params, metrics, source)
    yield "## Results"
    yield results_table(params, metrics)
    yield (
        "Test error in %, with the 95 % Wilson interval of the one network that was trained. "
        "Paper: its Table 1 for the same network and iterations; its MNIST figures are means of "
        "three trainings, its MultiMNIST test has 10M pairs."
    )
    yield seeds_table(params, metrics)
    yield from controls(params, metrics, drawn, here)
    for heading, files in SECTIONS.items():
        yield f"## {heading}"
        if heading == "Training":
            yield training_table(params, metrics)
            yield (
                "Times and memory are those of the machine that ran it; images/s is the median "
                "over the curve. The validation digits are cut from the training split."
            )
        for name in leading_runs(params):
            for file in files:
                if (runs / name / file).exists():
                    yield shown(runs / name / file, name, params, metrics[name], here)
            if heading.startswith("What each"):
                yield perturbation_grids(runs / name, name, here)
        if heading == "What routing does":
            yield from robustness(params, metrics, runs, drawn, here)
    yield "## Every run"
    for name, settings in params.runs.items():
        links = (f"[{file}]({relative(runs / name / file, here)})" for file in TABLES)
        yield f"{name} ({settings.network} on {settings.task}): {', '.join(links)}"


def leading_runs(params: Params) -> list[str]:
    """Of each task the first CapsNet, or the first run where there is none."""
    leading: dict[str, str] = {}
    for network in ("capsnet", "baseline"):
        for name, settings in params.runs.items():
            if settings.network == network:
                leading.setdefault(settings.task, name)
    return [name for name in params.runs if name in leading.values()]


def abstract(params: Params, metrics: dict[str, dict], source: str) -> str:
    trained = [
        f"{name} on {metrics[name]['training']['examples']:,} "
        + ("overlapping pairs" if task_of(params, name).num_digits > 1 else "images")
        for name in params.runs
    ]
    minutes = sum(one["training"]["seconds"] for one in metrics.values()) / 60
    return (
        "Capsule networks with dynamic routing, after Sabour, Frosst & Hinton 2017, trained on "
        f"{source}: {', '.join(trained)}; {minutes:.0f} minutes of training in all. The questions "
        "are those of the paper: does it recognise digits, also where they overlap, what do the "
        "numbers in a capsule stand for, and what has routing by agreement to do with it? Written "
        "by `dvc repro`: every number below was measured by it, and every sentence that says so "
        "was made from them. On MultiMNIST an example is right only if both digits are."
    )


def shown(path: Path, name: str, params: Params, metrics: dict, here: Path) -> str:
    """A picture under the sentence of what it shows."""
    sentence = FINDINGS[path.name](path.parents[1], metrics, params)
    return f"**{name}.** {sentence}\n\n![{name}: {path.stem}]({relative(path, here)})"


def robustness(
    params: Params, metrics: dict[str, dict], runs: Path, drawn: Path, here: Path
) -> Iterator[str]:
    """One figure for all runs with one digit to an image; without any a notice in its place."""
    path = drawn / "robustness.png"
    names = [name for name in params.runs if task_of(params, name).num_digits == 1]
    yield f"## {AFFINE}"
    if not names:
        figures.notice(path, title="No run has one digit to an image", note="Nothing to transform.")
        return
    tables = {name: pd.read_csv(runs / name / "robustness.csv") for name in names}
    robustness_curves(tables, path, title="Error under affine transformations not seen in training")
    for name in names:
        yield f"**{name}.** {FINDINGS['robustness.png'](runs / name, metrics[name], params)}"
    yield f"![Error under affine transformations]({relative(path, here)})"
    for name in names:
        picture = runs / name / "figures" / "affine.png"
        if picture.exists() and name in leading_runs(params):
            yield shown(picture, name, params, metrics[name], here)


def perturbation_grids(folder: Path, name: str, here: Path) -> str:
    """Figure 4 of every digit, folded away: ten large grids."""
    grids = sorted((folder / "perturbation").glob("digit_*.png"))
    if not grids:
        return ""
    pictures = [f"![{grid.stem.replace('_', ' ')}]({relative(grid, here)})" for grid in grids]
    head = f"<details><summary>{name}: every dimension of every digit (Figure 4)</summary>"
    return "\n\n".join([head, *pictures, "</details>"])


def relative(path: Path, here: Path) -> str:
    return Path(os.path.relpath(path, here)).as_posix()


if __name__ == "__main__":
    run(main, "report")
