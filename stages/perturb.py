"""Stage `perturb@<run>`: what do the numbers of a class capsule mean? (paper, section 5.1 and
Figure 4)

One number of the right capsule is changed from -range to +range, the other capsules stay zero, and
the decoder draws what the changed capsule stands for. The shape of what it draws is measured for
many test examples of each digit; drawn is the one that changes most like the mean. That range goes
beyond what any digit has, so the same is done within two standard deviations of the digit's own.
"""

import argparse
from pathlib import Path

from capsnet.config import RunConfig, load, resolve
from capsnet.explore.page import can_be_explored, explorer, no_explorer
from capsnet.learning.device import choose_device
from capsnet.learning.evaluation import Evaluator
from capsnet.studies.registry import STUDIES, Measured, part
from capsnet.tracking import track
from stages.command import parser_of_a_run, run
from stages.evaluator import make_evaluator
from stages.output import write_csv, write_text


def main() -> None:
    parser = parser_of_a_run(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to perturb")
    parser.add_argument("--out", type=Path, required=True, help="folder of tables and figures")
    parser.add_argument("--explorer", type=Path, required=True, help="web page to write, HTML")
    arguments = parser.parse_args()
    config = resolve(load(override=arguments.override, run=arguments.run), arguments.run)
    with track(
        "perturb", arguments.run, parameters=config.model_dump(), checkpoint=arguments.model
    ) as tracker:
        perturb(config, arguments, tracker)


def perturb(config: RunConfig, arguments: argparse.Namespace, tracker) -> None:
    """Write the tables, figures and page, and log them."""
    evaluator = make_evaluator(config, arguments.model, arguments.digits, choose_device())
    num_examples, out = config.task.test_examples or len(evaluator.digits), arguments.out
    for topic in (topic for topic, study in STUDIES.items() if study.stage == "perturb"):
        found = part(topic, "measure").study(evaluator, num_examples, config)
        for name, table in found.tables.items():
            write_csv(out / f"{name}.csv", table)
            tracker.artifact(out / f"{name}.csv")
        part(topic, "draw").draw(found, out, run=arguments.run, config=config)
        tracker.artifact(out / topic, folder=topic)
        few = min(num_examples, config.study_examples)
        write_text(arguments.explorer, page(evaluator, found, few, arguments.run))
    tracker.artifact(arguments.explorer)
    print(f"{arguments.run}: figures in {out / 'perturbation'}")


def page(evaluator: Evaluator, found: Measured, num_examples: int, name: str) -> str:
    """The explorer of the network; a notice for one that has nothing to turn or is too large."""
    if not can_be_explored(evaluator.model):
        return no_explorer(name)
    predictions = evaluator.evaluate(num_examples)
    try:
        return explorer(
            evaluator, predictions, found.tables["two_sigma"], found.pictures.capsules, name
        )
    except ValueError as problem:
        return no_explorer(name, str(problem))


if __name__ == "__main__":
    run(main, "perturb")
