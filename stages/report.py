"""Write reports/<budget>/summary.md from the results of all runs.

Figures of a topic are those of the leading runs, the first CapsNet of each task.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.report` in the repository root")

from collections.abc import Iterator
from pathlib import Path

from capsnet import program_parser
from capsnet.config import RunConfig, load, resolve
from capsnet.data.registry import DATA_SETS, worded
from capsnet.files import write_text
from capsnet.nn.registry import NETWORKS
from capsnet.paths import reports_folder
from capsnet.plots.canvas import NOUN
from capsnet.studies.errors.describe import headline
from capsnet.studies.registry import TABLES, sections
from capsnet.studies.results import Results, read_results, run_figures
from capsnet.studies.seeds.describe import comparison
from capsnet.studies.seeds.measure import records
from stages.command import run

INTRODUCTION = """Capsule networks with dynamic routing (Sabour, Frosst & Hinton 2017). `dvc repro`
writes this page: it measures every number and makes every sentence about a number from it. An
image of two digits is correct only if both are."""
RESULTS = "Test error in % with the 95 % Wilson interval of the one network that was trained."
PAPER = """Paper: Table 1, for the same network and iterations. Its errors on MNIST are means of
three trainings, its MultiMNIST test has 10M pairs."""
HOW = """No run here has another one to compare it with. Train one without agreement:
`dvc exp run -S '+runs.once={task: multimnist, network: compact, iterations: 1}'`.
`reports/study/study.md` compares rows of several seeds."""


def main() -> None:
    program_parser(__spec__.name, __doc__).parse_args()
    params = load()
    here, data = reports_folder(params.budget), DATA_SETS[params.source]
    NOUN.set(data.noun)
    configs = {name: resolve(params, name) for name in params.runs}
    measured = {name: read_results(here / "runs" / name, TABLES) for name in configs}
    title = f"# Results at budget `{params.budget}`, on {data.title}, seed {params.seed}"
    parts = [title, *summary(configs, measured, here)]
    (here / "figures").mkdir(parents=True, exist_ok=True)  # an output, also without a figure
    text = worded("\n\n".join(part for part in parts if part), data.noun)
    write_text(here / "summary.md", text + "\n")
    print(headline(configs, measured))


def summary(
    configs: dict[str, RunConfig], measured: dict[str, Results], here: Path
) -> Iterator[str]:
    drawn = here / "figures"
    yield from (INTRODUCTION, "## Results", headline(configs, measured), RESULTS)
    if any(config.source == "mnist" for config in configs.values()):
        yield PAPER
    found = records(configs, measured)
    several = found.groupby("task")["row"].nunique().max() > 1
    yield from ("## Does routing matter?", *(comparison(found, drawn, here) if several else [HOW]))
    for section in sections():
        yield f"## {section.heading}"
        if section.overview:
            yield from section.overview(configs, measured, drawn, here)
        for name in leading_runs(configs):
            folder = here / "runs" / name
            yield from run_figures(section, measured[name], configs[name], folder, here)
    yield "## Every run"
    files = ["training.json", "metrics.json", *(f"{table}.csv" for table in TABLES)]
    for name, config in configs.items():
        links = (f"[{file}](runs/{name}/{file})" for file in files)
        yield f"{name} ({config.network} on {config.task.name}): {', '.join(links)}"


def leading_runs(configs: dict[str, RunConfig]) -> list[str]:
    """The first CapsNet of each task, or else the first run of the next network in NETWORKS."""
    kinds, leading = list(NETWORKS), {}
    for config in sorted(configs.values(), key=lambda config: kinds.index(config.network)):
        leading.setdefault(config.task.name, config.name)
    return [name for name in configs if name in leading.values()]


if __name__ == "__main__":
    run(main, "report")
