"""Stage `report` of the study: the runs that are done -> reports/study/study.md.

A run is done when its training and its evaluation are there; the others are named in the report. A
run that was evaluated with every topic, in a folder beside the report, has a report of its own.
"""

import argparse
from pathlib import Path

from capsnet.config import load, resolve
from capsnet.files import write_text
from capsnet.report.sections import report_of
from capsnet.report.study import study
from capsnet.studies.registry import TABLES
from capsnet.studies.results import read_results
from stages.command import OVERRIDE, run

NEEDED = ("training", "errors", "separation", "examples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--override", type=Path, required=True, help=OVERRIDE)
    parser.add_argument("--runs", type=Path, required=True, help="folder with a folder per run")
    words = "report to write, Markdown, with its figures beside it"
    parser.add_argument("--report", type=Path, required=True, help=words)
    arguments = parser.parse_args()
    here, series = arguments.report.parent, {}
    files = ("training.json", "metrics.json", *(f"{table}.csv" for table in NEEDED))
    for name in load(override=arguments.override).runs:
        params, folder = load(override=arguments.override, run=name), arguments.runs / name
        _, runs, measured = series.setdefault(params.budget, (params, {}, {}))
        runs[name] = params.runs[name]
        if all((folder / file).exists() for file in files):
            measured[name] = read_results(folder, NEEDED)
        if (here / name / "perturbation").exists():
            shown = read_results(here / name, TABLES, training=folder)
            if name in measured and len(shown.tables["robustness"]):  # one digit: for affNIST
                measured[name].tables["robustness"] = shown.tables["robustness"]
            parts = report_of(shown, resolve(params, name), here / name, here)
            write_text(here / f"{name}.md", "\n\n".join(part for part in parts if part) + "\n")
    each = [(one.model_copy(update={"runs": runs}), done) for one, runs, done in series.values()]
    parts = study(each, here / "figures", here)
    write_text(arguments.report, "\n\n".join(parts) + "\n")
    done = sum(len(measured) for _, _, measured in series.values())
    listed = sum(len(runs) for _, runs, _ in series.values())
    print(f"{done} of {listed} runs: {arguments.report}")


if __name__ == "__main__":
    run(main, "study")
