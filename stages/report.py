"""Stage `report`: everything that was measured -> reports/summary.md, a short paper beside the
published one.

A section is a question; its figures are those of the leading runs, the first CapsNet of each task.
Every sentence is made from the numbers of this very run (`capsnet.studies.<topic>.describe`).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from capsnet.config import Params, load, resolve
from capsnet.nn.registry import NETWORKS
from capsnet.plots.pictures import notice
from capsnet.report.comparisons import controls
from capsnet.report.sections import figures_of, relative, sections
from capsnet.report.tables import results_table, training_table
from capsnet.studies.registry import TABLES
from capsnet.studies.results import Results, read_results
from capsnet.studies.robustness.describe import robustness as describe_robustness
from capsnet.studies.robustness.draw import robustness_curves
from stages.command import run
from stages.output import write_text

SOURCES = {"mnist": "MNIST", "scikit-learn": "scikit-learn's 1,797 digits"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder with a folder per run")
    parser.add_argument("--summary", type=Path, required=True, help="summary to write, Markdown")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    arguments = parser.parse_args()
    params = load()
    measured = {name: read_results(arguments.runs / name, TABLES) for name in params.runs}
    parts = summary(params, measured, arguments.runs, arguments.figures, arguments.summary.parent)
    write_text(arguments.summary, "\n\n".join(part for part in parts if part) + "\n")
    print(results_table(params, measured))


def summary(
    params: Params, measured: dict[str, Results], runs: Path, drawn: Path, here: Path
) -> Iterator[str]:
    source = SOURCES[params.source]
    yield f"# Results at budget `{params.budget}`, on {source}, seed {params.seed}"
    yield abstract(params, measured, source)
    yield "## Results"
    yield results_table(params, measured)
    yield (
        "Test error in %, with the 95 % Wilson interval of the one network that was trained. "
        "Paper: its Table 1 for the same network and iterations; its MNIST figures are means of "
        "three trainings, its MultiMNIST test has 10M pairs."
    )
    yield from controls(params, measured, drawn, here)
    for topic, section in sections().items():
        yield f"## {section.heading}"
        if topic in OVERVIEWS:
            yield from OVERVIEWS[topic](params, measured, drawn, here)
        for name in leading_runs(params):
            yield from figures_of(section, measured[name], resolve(params, name), runs / name, here)
    yield "## Every run"
    for name, settings in params.runs.items():
        files = ["training.json", "metrics.json", *(f"{table}.csv" for table in TABLES)]
        links = (f"[{file}]({relative(runs / name / file, here)})" for file in files)
        yield f"{name} ({settings.network} on {settings.task}): {', '.join(links)}"


def leading_runs(params: Params) -> list[str]:
    """Of each task the first CapsNet; where there is none, the first of the next kind."""
    leading: dict[str, str] = {}
    for network in NETWORKS:
        for name, settings in params.runs.items():
            if settings.network == network:
                leading.setdefault(settings.task, name)
    return [name for name in params.runs if name in leading.values()]


def abstract(params: Params, measured: dict[str, Results], source: str) -> str:
    trained = [
        f"{name} on {measured[name].tables['training']['examples'].iloc[-1]:,} "
        + ("overlapping pairs" if resolve(params, name).task.num_digits > 1 else "images")
        for name in params.runs
    ]
    minutes = sum(one.headline["minutes"] for one in measured.values())
    return (
        "Capsule networks with dynamic routing, after Sabour, Frosst & Hinton 2017, trained on "
        f"{source}: {', '.join(trained)}; {minutes:.0f} minutes of training in all. The questions "
        "are those of the paper: does it recognise digits, also where they overlap, what do the "
        "numbers in a capsule stand for, and what has routing by agreement to do with it? Written "
        "by `dvc repro`: every number below was measured by it, and every sentence that says so "
        "was made from them. On MultiMNIST an example is right only if both digits are."
    )


def training(
    params: Params, measured: dict[str, Results], drawn: Path, here: Path
) -> Iterator[str]:
    yield training_table(params, measured)
    yield (
        "GMAC: billions of multiply-adds for one image, without the decoder. Times and "
        "memory are those of the machine that ran it; images/s is the median over the "
        "curve. The validation digits are drawn from the training split; training error: "
        "on digits trained on, shown as those."
    )


def robustness(
    params: Params, measured: dict[str, Results], drawn: Path, here: Path
) -> Iterator[str]:
    """One figure for all runs with one digit to an image; without any a notice in its place."""
    path = drawn / "robustness.png"
    names = [name for name in params.runs if resolve(params, name).task.num_digits == 1]
    if not names:
        notice(path, title="No run has one digit to an image", note="Nothing to transform.")
        return
    tables = {name: measured[name].tables["robustness"] for name in names}
    robustness_curves(tables, path, title="Error under affine transformations not seen in training")
    for name in names:
        yield f"**{name}.** {describe_robustness(measured[name], resolve(params, name))}"
    yield f"![Error under affine transformations]({relative(path, here)})"


OVERVIEWS = {"training": training, "robustness": robustness}  # of all runs, above their figures


if __name__ == "__main__":
    run(main, "report")
