"""Write reports/study/study.md and claims.md from the finished runs of the study.

A run is finished when its training and evaluation are there. One that is for a claim has no row in
study.md. One that was evaluated with every topic, in a folder beside the report, has a page of its
own.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.study` in the repository root")

from collections.abc import Iterable, Iterator
from pathlib import Path

from capsnet import program_parser
from capsnet.config import RunConfig, load, resolve
from capsnet.files import write_text
from capsnet.paths import STUDY_PARAMS, STUDY_REPORTS
from capsnet.studies.claims.describe import page as claims_page
from capsnet.studies.claims.describe import without_seeds
from capsnet.studies.claims.measure import TRANSFORMS
from capsnet.studies.registry import TABLES, sections
from capsnet.studies.results import Results, read_results, run_figures
from capsnet.studies.seeds import describe
from capsnet.studies.seeds.measure import records
from stages.command import run

NEEDED = ("training", "errors", "separation", "examples")


def main() -> None:
    program_parser(__spec__.name, __doc__).parse_args()
    here, configs, measured = STUDY_REPORTS, {}, {}
    runs = load(override=STUDY_PARAMS).runs
    claims = {name: run.claim for name, run in runs.items() if run.claim is not None}
    for name in runs:
        configs[name] = resolve(load(override=STUDY_PARAMS, run=name), name)
        folder, shown = here / "runs" / name, here / name
        transformed = claims.get(name) != "digits" and configs[name].task.num_digits == 1
        needed = (*NEEDED, TRANSFORMS) if name in claims and transformed else NEEDED
        if all((folder / file).exists() for file in files(needed)):
            measured[name] = read_results(folder, needed)
        if (shown / "perturbation").exists():
            results = read_results(shown, TABLES, training=folder)
            write_parts(here / f"{name}.md", page(results, configs[name], shown, here))
    (here / "figures").mkdir(parents=True, exist_ok=True)  # an output, also without a figure
    write_parts(here / "claims.md", claims_page(configs, measured, claims, here))
    own = {name: config for name, config in configs.items() if name not in claims}
    results = {name: measured[name] for name in own if name in measured}
    write_parts(here / "study.md", study(own, results, here))
    print(f"{len(measured)} of {len(configs)} runs: {here / 'study.md'}")


def files(tables: Iterable[str]) -> tuple[str, ...]:
    return "training.json", "metrics.json", *(f"{table}.csv" for table in tables)


def write_parts(path: Path, parts: Iterable[str]) -> None:
    write_text(path, "\n\n".join(parts) + "\n")


def study(configs: dict[str, RunConfig], measured: dict[str, Results], here: Path) -> Iterator[str]:
    missing = ", ".join(without_seeds(name for name in configs if name not in measured))
    yield "# Does routing matter? The study"
    yield (
        f"{len(measured)} of {len(configs)} networks are trained and tested."
        + (f" Missing: {missing}." if missing else "")
        + " How rows are compared: [docs/study.md](../../docs/study.md)."
    )
    if not measured:
        return
    runs = records(configs, measured)
    yield from describe.comparison(runs, here / "figures", here)
    yield from ("## Trainings", describe.training_markdown(runs))
    yield from ("## Table 1 of the paper", describe.paper_markdown(runs))


def page(results: Results, config: RunConfig, folder: Path, here: Path) -> Iterator[str]:
    """Every topic of one run whose tables and figures are in `folder`."""
    found, examples = results.headline, results.tables["training"]["examples"].iloc[-1]
    yield f"# {results.name}: {config.network} on {config.task.name}, {examples:,} images shown"
    interval = f"{found['test_error_low']:.2f} to {found['test_error_high']:.2f}"
    yield f"Test error {found['test_error']:.2f} % (95 % Wilson interval {interval})."
    for section in sections():
        figures = list(run_figures(section, results, config, folder, here))
        yield from (f"## {section.heading}", *figures) if figures else ()


if __name__ == "__main__":
    run(main, "study")
