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

from capsnet.files import file_md5, write_json
from capsnet.learning.device import choose_device
from capsnet.learning.distributed import init_distributed
from capsnet.plots.canvas import NOUN
from capsnet.studies.errors.measure import headline
from capsnet.studies.registry import STUDIES, Measured, measure, part
from capsnet.tracking import track
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
    device, out = choose_device(), arguments.out or paths.reports
    with init_distributed(device) as distributed:
        distributed.agree(f"networks in {paths.model}", file_md5(paths.model))
        log = track("evaluate", config.name, **config.logged(), checkpoint=paths.model)
        with log if distributed.first else nullcontext() as tracker:
            evaluator = make_evaluator(config, paths.model, paths.digits, device)
            NOUN.set(evaluator.digits.about.noun)
            count = config.task.test_examples or len(evaluator.digits)
            if distributed.first:
                print(f"{config.name}: testing on {count:,} examples", flush=True)
            predictions = evaluator.evaluate(count, distributed, num_kept=config.study_examples)
            if not distributed.first:
                return
            numbers, metrics = headline(predictions), out / "metrics.json"
            tracker.dataset(paths.digits, name=config.source, split="test", num_examples=count)
            write_json(metrics, {config.budget: {config.name: numbers}})
            tracker.headline(numbers)
            tracker.artifact(metrics)
            tracker.tested(test_error=numbers["test_error"])
            interval = f"{numbers['test_error_low']:.2f} to {numbers['test_error_high']:.2f}"
            line = f"test error {numbers['test_error']:.2f} % ({interval}) of {count:,} examples"
            if "test_balanced_accuracy" in numbers:
                line += f", balanced accuracy {numbers['test_balanced_accuracy']:.2f} %"
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


def topics_of(text: str) -> list[str]:
    """Names with a comma between them."""
    if wrong := set(text.split(",")).difference(TOPICS):
        raise argparse.ArgumentTypeError(f"got {min(wrong)!r}, wanted some of {', '.join(TOPICS)}")
    return text.split(",")


if __name__ == "__main__":
    run(main, "evaluate")
