"""Stage `tell` of the study: what the stage `show` measured and drew of a run -> its own report.

Under each figure stands the sentence that `report` of the root pipeline has for its runs.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from capsnet.config import RunConfig, load, resolve
from capsnet.report.sections import SECTIONS, TABLES, perturbation_grids, shown
from capsnet.report.tables import Results, read_results
from stages.command import ALSO, run
from stages.output import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a key of `runs`")
    parser.add_argument("--also", type=Path, required=True, help=ALSO)
    parser.add_argument("--training", type=Path, required=True, help="folder of its training")
    parser.add_argument("--folder", type=Path, required=True, help="folder with tables and figures")
    parser.add_argument("--report", type=Path, required=True, help="report to write, Markdown")
    arguments = parser.parse_args()
    config = resolve(load(override=arguments.also, same_digits=False), arguments.run)
    results = read_results(arguments.folder, TABLES, training=arguments.training)
    parts = told(results, config, arguments.folder, arguments.report.parent)
    write_text(arguments.report, "\n\n".join(part for part in parts if part) + "\n")


def told(results: Results, config: RunConfig, folder: Path, here: Path) -> Iterator[str]:
    found, examples = results.headline, results.tables["training"]["examples"].iloc[-1]
    yield f"# {results.name}: {config.network} on {config.task.name}, {examples:,} images shown"
    yield (
        f"Test error {found['error']:.2f} % ({found['error_low']:.2f} to "
        f"{found['error_high']:.2f}, 95 %, Wilson's of this one network). Every sentence below is "
        "made from the tables of this run, which stand beside its figures."
    )
    for heading, files in SECTIONS.items():
        drawn = [folder / file for file in files if (folder / file).exists()]
        if drawn:
            yield f"## {heading}"
        for path in drawn:
            yield shown(path, results, config, here)
        if heading.startswith("What each"):
            yield perturbation_grids(folder, results.name, here)


if __name__ == "__main__":
    run(main, "tell")
