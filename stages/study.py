"""Stage `report` of the study: the runs that are done -> reports/study/study.md.

A run is done when its training and its score are there; the others are named in the report.
"""

import argparse
from pathlib import Path

from capsnet.config import load
from capsnet.report.study import study
from capsnet.report.tables import read_results
from stages.command import ALSO, run
from stages.output import write_text

AFFNIST = "robustness"  # of the runs on affNIST's canvas
TABLES = ("training", "errors", "told_apart", "examples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--also", type=Path, required=True, action="append", help=ALSO)
    parser.add_argument("--runs", type=Path, required=True, help="folder with a folder per run")
    parser.add_argument("--report", type=Path, required=True, help="report to write, Markdown")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    arguments = parser.parse_args()
    needed = ("training.json", "metrics.json", *(f"{table}.csv" for table in TABLES))
    series = []
    for also in arguments.also:
        params, measured = load(override=also, same_digits=False), {}
        for name in params.runs:
            folder = arguments.runs / name
            if all((folder / file).exists() for file in needed):
                more = [AFFNIST] if (folder / f"{AFFNIST}.csv").exists() else []
                measured[name] = read_results(folder, [*TABLES, *more])
        series.append((params, measured))
    parts = study(series, arguments.figures, arguments.report.parent)
    write_text(arguments.report, "\n\n".join(parts) + "\n")
    done = sum(len(measured) for _, measured in series)
    listed = sum(len(params.runs) for params, _ in series)
    print(f"{done} of {listed} runs: {arguments.report}")


if __name__ == "__main__":
    run(main, "study")
