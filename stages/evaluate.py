"""Test the network of one run and write its test error, tables and figures.

MNIST: every test digit once, unshifted. MultiMNIST: a fixed set of test pairs, the same for every
run. The headline numbers and the errors are of the whole test, the other topics of its first
examples.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.evaluate` in the repository root")

import argparse
from contextlib import nullcontext

import pandas as pd

from capsnet.config import RunConfig
from capsnet.files import file_md5, write_json
from capsnet.learning.device import choose_device
from capsnet.learning.distributed import init_distributed
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.paths import RunPaths
from capsnet.plots.canvas import NOUN
from capsnet.studies.errors.measure import headline
from capsnet.studies.registry import STUDIES, Measured, measure, part
from capsnet.tracking import Tracker, track
from stages.build import make_evaluator
from stages.command import configuration, run, run_parser

TOPICS = [topic for topic, study in STUDIES.items() if study.stage != "perturb"]


def main() -> None:
    parser = run_parser(__spec__.name, __doc__, out=True)
    words = f"topics with commas between them, of {', '.join(TOPICS)} (default: all)"
    parser.add_argument("--topics", type=topics_of, default=TOPICS, help=words)
    parser.add_argument("--no-figures", action="store_true", help="write the tables only")
    arguments = parser.parse_args()
    config, paths = configuration(arguments)
    device = choose_device()
    with init_distributed(device) as distributed:
        distributed.agree(f"networks in {paths.model}", file_md5(paths.model))
        log = track("evaluate", config.name, **config.logged(), checkpoint=paths.model)
        with log if distributed.first else nullcontext() as tracker:
            evaluator = make_evaluator(config, paths.model, paths.digits, device)
            count = config.task.test_examples or len(evaluator.digits)
            if distributed.first:
                print(f"{config.name}: testing on {count:,} examples", flush=True)
            predictions = evaluator.evaluate(count, distributed, num_kept=config.study_examples)
            if distributed.first:
                evaluate(evaluator, predictions, config, paths, arguments, tracker)


def topics_of(text: str) -> list[str]:
    """Names with a comma between them."""
    if unknown := set(text.split(",")).difference(TOPICS):
        wanted = f"wanted some of {', '.join(TOPICS)}"
        raise argparse.ArgumentTypeError(f"got {min(unknown)!r}, {wanted}")
    return text.split(",")


def evaluate(
    evaluator: Evaluator, predictions: Predictions, config: RunConfig, paths: RunPaths,
    arguments: argparse.Namespace, tracker: Tracker
) -> None:  # fmt: skip
    """Write the headline numbers and every topic, and log them."""
    NOUN.set(evaluator.digits.about.noun)
    out, numbers = arguments.out or paths.reports, headline(predictions)
    num_examples = len(predictions.labels)
    tracker.dataset(paths.digits, name=config.source, split="test", num_examples=num_examples)
    write_json(out / "metrics.json", {config.budget: {config.name: numbers}})
    tracker.headline({f"test_{name}": value for name, value in numbers.items()})
    tracker.artifact(out / "metrics.json")
    tracker.tested(out / "metrics.json", test_error=numbers["error"])
    interval = f"{numbers['error_low']:.2f} to {numbers['error_high']:.2f}"
    line = f"test error {numbers['error']:.2f} % ({interval}) of {num_examples:,} examples"
    if "balanced_accuracy" in numbers:
        line += f", balanced accuracy {numbers['balanced_accuracy']:.2f} %"
    print(f"{config.name}: {line}")
    for topic in arguments.topics:
        print(f"{config.name}: evaluating {topic}", flush=True)
        if STUDIES[topic].stage == "evaluate":
            found = measure(topic, evaluator, predictions, config, out=out, tracker=tracker)
        elif not arguments.no_figures:  # measured in training
            found = Measured({"training": pd.read_csv(paths.curve)})
        if STUDIES[topic].shown and not arguments.no_figures:
            part(topic, "draw").draw(found, out, config)
    if (out / "figures").exists():
        tracker.figures(out / "figures")


if __name__ == "__main__":
    run(main, "evaluate")
