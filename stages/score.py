"""Stage `score@<run>` of the study: a network and the test split -> headline numbers and tables.

MNIST: every test digit once, unshifted. MultiMNIST: a fixed set of test pairs, the same for every
run. The root's `evaluate` is this and the figures; apart from them, so that no change of a figure
makes a study of many runs stale.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from capsnet.config import RunConfig, load, resolve
from capsnet.device import choose_device, keep_freed_memory
from capsnet.evaluation import Outcome, Subject, load_subject
from capsnet.nn.layers import route_with
from capsnet.ranks import joined
from capsnet.studies import errors
from capsnet.studies.told_apart import told_apart
from capsnet.tracking import track
from capsnet.tracking.values import md5
from stages.command import done_by, parser_of_a_run, run
from stages.output import write_csv, write_json

LISTED = 100_000  # examples, at most, that are told apart one by one: of 10M pairs the first
TABLES = ("errors", "confusion", "told_apart", "examples")


def main() -> None:
    arguments = parser_of_a_score(__doc__.splitlines()[0]).parse_args()
    judged_by_all("stages.score", arguments, lambda *_: None)


def judged_by_all(module: str, arguments: argparse.Namespace, further: Callable) -> None:
    """Show the network the test split, in as many processes as `launcher` says, and score it. The
    first process goes on with `further`(subject, outcome, config, tracker) alone.
    """
    params = load(override=arguments.also)
    config = resolve(params, arguments.run)
    if done_by(params.launcher, module):
        return
    device = choose_device()
    with joined(device) as ranks:
        ranks.agree(f"networks in {arguments.model}", md5(arguments.model))
        if not ranks.first:
            subject = subject_of(config, arguments, device)
            subject.judge(config.task.test_examples or len(subject.digits), ranks)
            return
        with track(
            "evaluate", arguments.run, parameters=config.model_dump(), checkpoint=arguments.model
        ) as tracker:
            subject = subject_of(config, arguments, device)
            outcome = subject.judge(config.task.test_examples or len(subject.digits), ranks)
            score(subject, outcome, config, arguments, tracker)
            further(subject, outcome, config, tracker)


def parser_of_a_score(description: str) -> argparse.ArgumentParser:
    parser = parser_of_a_run(description)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to evaluate")
    parser.add_argument("--metrics", type=Path, required=True, help="headlines to write, JSON")
    for table in TABLES:
        option = f"--{table.replace('_', '-')}"
        parser.add_argument(option, type=Path, required=True, help="table to write, CSV")
    return parser


def subject_of(config: RunConfig, arguments: argparse.Namespace, device: torch.device) -> Subject:
    """The network under test, shown what its task says."""
    keep_freed_memory()
    task = config.task
    subject = load_subject(
        arguments.model,
        arguments.digits,
        device,
        precision=config.optimizer.precision,
        seed=config.evaluate.seed,
        batch_size=config.evaluate.batch_size,
        num_digits=task.num_digits,
        image_size=task.image_size,
        max_shift=task.test_shift,
    )
    route_with(subject.model, config.routing.implementation)
    return subject


def score(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace, tracker
) -> None:
    """Write the headlines and the tables, and log them."""
    num_examples, source = len(outcome.labels), config.source
    tracker.dataset(arguments.digits, name=source, split="test", num_examples=num_examples)
    headline = errors.headline(outcome)
    write_csv(arguments.errors, errors.error_table(outcome))
    write_csv(arguments.confusion, errors.confusion_table(outcome))
    few = min(config.study_examples, num_examples)
    write_csv(arguments.told_apart, told_apart(subject, few))
    write_csv(arguments.examples, pd.DataFrame({"right": outcome.correct[:LISTED].int()}))
    write_json(arguments.metrics, {arguments.run: headline})
    tracker.headline(headline)
    for name in ("metrics", *TABLES):
        tracker.artifact(getattr(arguments, name))
    interval = f"{headline['error_low']:.2f} to {headline['error_high']:.2f}"
    found = f"test error {headline['error']:.2f} % ({interval}) of {num_examples:,} examples"
    print(f"{arguments.run}: {found}")


if __name__ == "__main__":
    run(main, "score")
