"""Stage `evaluate@<run>`: a network and the test split -> headline numbers, tables and figures.

MNIST: every test digit once, unshifted. MultiMNIST: a fixed set of test pairs, the same for every
run. The headline numbers and the errors are of the whole test, the other topics of its first
examples.
"""

import argparse
from pathlib import Path

import pandas as pd

from capsnet.config import RunConfig, load, resolve
from capsnet.files import file_md5
from capsnet.learning.device import choose_device
from capsnet.learning.distributed import init_distributed
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.studies.errors.measure import headline
from capsnet.studies.registry import STUDIES, Measured, part
from capsnet.tracking import track
from stages.command import parser_of_a_run, run
from stages.evaluator import make_evaluator
from stages.output import write_csv, write_json

TOPICS = [topic for topic, study in STUDIES.items() if study.stage != "perturb"]


def main() -> None:
    parser = parser_of_a_run(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to evaluate")
    parser.add_argument("--out", type=Path, required=True, help="folder of tables and figures")
    parser.add_argument("--curve", type=Path, help="training curve to draw, CSV (topic training)")
    words = f"comma between, of {','.join(TOPICS)} (default: all)"
    parser.add_argument("--topics", type=topics_of, default=TOPICS, help=words)
    parser.add_argument("--no-figures", action="store_true", help="write the tables alone")
    arguments = parser.parse_args()
    if "training" in arguments.topics and not (arguments.curve or arguments.no_figures):
        parser.error("topic training: --curve is missing")
    config = resolve(load(override=arguments.override, run=arguments.run), arguments.run)
    device = choose_device()
    with init_distributed(device) as distributed:
        distributed.agree(f"networks in {arguments.model}", file_md5(arguments.model))

        def evaluate_test() -> tuple[Evaluator, Predictions]:
            """Predict the whole test; each process takes a shard."""
            evaluator = make_evaluator(config, arguments.model, arguments.digits, device)
            many = config.task.test_examples or len(evaluator.digits)
            return evaluator, evaluator.evaluate(many, distributed, num_kept=config.study_examples)

        if not distributed.first:
            evaluate_test()
            return
        with track(
            "evaluate", arguments.run, parameters=config.model_dump(), checkpoint=arguments.model
        ) as tracker:
            evaluate(*evaluate_test(), config, arguments, tracker)


def topics_of(text: str) -> list[str]:
    """Names with a comma between them."""
    topics = text.split(",")
    for topic in topics:
        if topic not in TOPICS:
            raise argparse.ArgumentTypeError(f"got {topic!r}, wanted some of {', '.join(TOPICS)}")
    return topics


def evaluate(
    evaluator: Evaluator,
    predictions: Predictions,
    config: RunConfig,
    arguments: argparse.Namespace,
    tracker,
) -> None:
    """Write the headline numbers and every topic, and log them."""
    out, num_examples, numbers = arguments.out, len(predictions.labels), headline(predictions)
    tracker.dataset(arguments.digits, name=config.source, split="test", num_examples=num_examples)
    write_json(out / "metrics.json", {arguments.run: numbers})
    tracker.headline(numbers)
    tracker.artifact(out / "metrics.json")
    interval = f"{numbers['error_low']:.2f} to {numbers['error_high']:.2f}"
    error = f"{numbers['error']:.2f} % ({interval})"
    print(f"{arguments.run}: test error {error} of {num_examples:,} examples")
    for topic in arguments.topics:
        if STUDIES[topic].stage == "evaluate":
            found = part(topic, "measure").study(evaluator, predictions, config)
            for name, table in found.tables.items():
                write_csv(out / f"{name}.csv", table)
                tracker.artifact(out / f"{name}.csv")
        elif not arguments.no_figures:  # measured in training
            found = Measured({"training": pd.read_csv(arguments.curve)})
        if STUDIES[topic].shown and not arguments.no_figures:
            part(topic, "draw").draw(found, out, run=arguments.run, config=config)
    if (out / "figures").exists():
        tracker.artifact(out / "figures", folder="figures")


if __name__ == "__main__":
    run(main, "evaluate")
