"""Perturb the dimensions of the class capsules of one run (paper, section 5.1 and Figure 4).

One number of the capsule of the right class is changed from -range to +range, the other capsules
are zero, and the decoder reconstructs. The shape of the reconstruction is measured for many test
examples of each class. The range of the paper goes beyond what any digit has, so the same is done
within two standard deviations of the capsules of the class.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.perturb` in the repository root")

from pathlib import Path

from capsnet.config import RunConfig
from capsnet.explore.page import can_be_explored, explorer, no_explorer
from capsnet.files import write_text
from capsnet.learning.device import choose_device
from capsnet.learning.evaluation import Evaluator
from capsnet.paths import RunPaths
from capsnet.plots.canvas import NOUN
from capsnet.reading.errors import KnownError, known_error
from capsnet.studies.registry import Measured, measure, part
from capsnet.tracking import Tracker, track
from stages.build import make_evaluator
from stages.command import configuration, run, run_parser

TOPIC = "perturbation"


def main() -> None:
    arguments = run_parser(__spec__.name, __doc__, out=True).parse_args()
    config, paths = configuration(arguments)
    with track("perturb", config.name, **config.logged(), checkpoint=paths.model) as tracker:
        perturb(config, paths, arguments.out or paths.reports, tracker)


def perturb(config: RunConfig, paths: RunPaths, out: Path, tracker: Tracker) -> None:
    """Write the tables, figures and page, and log them."""
    evaluator = make_evaluator(config, paths.model, paths.digits, choose_device())
    NOUN.set(evaluator.digits.about.noun)
    num_examples = config.task.test_examples or len(evaluator.digits)
    print(f"{config.name}: measuring the {TOPIC} of capsules", flush=True)
    found = measure(TOPIC, evaluator, num_examples, config, out=out, tracker=tracker)
    print(f"{config.name}: drawing the {TOPIC} of capsules", flush=True)
    part(TOPIC, "draw").draw(found, out, config)
    tracker.figures(out / TOPIC)
    print(f"{config.name}: writing {paths.explorer}", flush=True)
    few = min(num_examples, config.study_examples)
    write_text(paths.explorer, page(evaluator, found, few, config, known_error(paths.model)))
    tracker.artifact(paths.explorer)
    print(f"{config.name}: figures in {out / TOPIC}")


def page(
    evaluator: Evaluator, found: Measured, num_examples: int, config: RunConfig,
    error: KnownError | None
) -> str:  # fmt: skip
    """The explorer page, or a notice for a network that cannot be explored or is too large."""
    if not can_be_explored(evaluator.model):
        return no_explorer(config.title)
    shown = evaluator.evaluate(num_examples), found.tables["two_sigma"], found.pictures.capsules
    try:
        return explorer(evaluator, *shown, config.title, error=error)
    except ValueError as too_large:
        return no_explorer(config.title, str(too_large))


if __name__ == "__main__":
    run(main, "perturb")
