"""Stage `evaluate@<run>`: a network and the test split -> headline numbers, tables and figures.

The headlines and the errors are those of `stages.score`; the studies here look at fewer examples.
"""

import argparse
from functools import partial
from pathlib import Path

import pandas as pd

from capsnet import figures
from capsnet.config import RunConfig
from capsnet.data.archives import NUM_CLASSES
from capsnet.evaluation import Outcome, Subject
from capsnet.figures.calibration import calibration as draw_calibration
from capsnet.figures.couplings import couplings as draw_couplings
from capsnet.figures.couplings import routing as draw_routing
from capsnet.nn.registry import NETWORKS
from capsnet.studies import calibration, errors, reconstructions, robustness, routing
from stages.command import run
from stages.output import write_csv
from stages.score import judged_by_all, parser_of_a_score

TABLES = ("routing", "robustness", "calibration", "counts")
NUM_TRANSFORMED = 16  # digits in the figure of the affine test


def main() -> None:
    parser = parser_of_a_score(__doc__.splitlines()[0])
    parser.add_argument("--curve", type=Path, required=True, help="training curve to draw, CSV")
    for table in TABLES:
        parser.add_argument(f"--{table}", type=Path, required=True, help="table to write, CSV")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    arguments = parser.parse_args()
    judged_by_all("stages.evaluate", arguments, partial(evaluate, arguments))


def evaluate(
    arguments: argparse.Namespace, subject: Subject, outcome: Outcome, config: RunConfig, tracker
) -> None:
    """The studies, with a figure each."""
    few = config.study_examples
    draw_errors(outcome, arguments)
    draw_training(arguments)
    study_reconstructions(subject, outcome, few, arguments)
    network = NETWORKS[config.network]
    shifted = subject._replace(max_shift=config.task.training_shift)
    study_calibration(shifted, outcome, few, arguments, capsules=network.gives_lengths)
    study_routing(subject, min(few, len(outcome.labels)), arguments, routes=network.routes)
    study_robustness(subject, config, arguments)
    for table in TABLES:
        tracker.artifact(getattr(arguments, table))
    tracker.artifact(arguments.figures, folder="figures")


def draw_errors(outcome: Outcome, arguments: argparse.Namespace) -> None:
    """By pair, by overlap, and which digit was taken for which."""
    folder, name = arguments.figures, arguments.run
    table = errors.error_table(outcome)
    title = f"{name}: which digit was taken for which"
    counts = errors.confusion_table(outcome)["count"].to_numpy().reshape(NUM_CLASSES, NUM_CLASSES)
    figures.confusion(counts, folder / "confusion.png", title=title)
    if outcome.labels.shape[1] > 1:
        title = f"{name}: error by pair of digits"
        figures.pair_errors(errors.pair_matrix(table), folder / "pairs.png", title=title)
        title, rows = f"{name}: error by overlap of the two digits", table["group"] == "overlap"
        figures.error_by_overlap(table[rows], folder / "overlap.png", title=title)


def draw_training(arguments: argparse.Namespace) -> None:
    title = f"{arguments.run}: training loss and error"
    curve = pd.read_csv(arguments.curve)
    figures.training_curve(curve, arguments.figures / "training.png", title=title)


def study_reconstructions(
    subject: Subject, outcome: Outcome, num_examples: int, arguments: argparse.Namespace
) -> None:
    """Figure 3 of the paper, or Figure 5 for two digits to an image; then one more row in the table
    of what is told apart.
    """
    path, name = arguments.figures / "reconstructions.png", arguments.run
    if subject.model.decoder is None:
        return
    if subject.num_digits == 1:
        shown = reconstructions.single_reconstructions(subject, outcome)
        figures.reconstructions(shown, path, title=f"{name}: test digits and their reconstructions")
    else:
        shown = reconstructions.overlaid_reconstructions(subject, outcome)
        figures.overlaid_reconstructions(shown, path, title=f"{name}: two digits, told apart")
        table = pd.read_csv(arguments.told_apart)
        few = min(num_examples, len(outcome.labels))
        table.loc[len(table)] = reconstructions.pixels_by_means(subject, few)
        write_csv(arguments.told_apart, table)


def study_calibration(
    subject: Subject,
    outcome: Outcome,
    num_examples: int,
    arguments: argparse.Namespace,
    *,
    capsules: bool,
) -> None:
    """Are lengths probabilities, and how many digits are seen?"""
    bins = calibration.reliability_table(outcome, capsules=capsules)
    counts = calibration.count_table(subject, num_examples)
    write_csv(arguments.calibration, bins)
    write_csv(arguments.counts, counts)
    draw_calibration(
        bins,
        counts,
        arguments.figures / "calibration.png",
        title=f"{arguments.run}: are lengths probabilities, and how many digits are seen?",
        error=calibration.expected_calibration_error(bins),
        threshold=calibration.THRESHOLD,
        trained_on="one digit" if subject.num_digits == 1 else "two digits",
    )


def study_routing(
    subject: Subject, num_examples: int, arguments: argparse.Namespace, *, routes: bool
) -> None:
    """What happens in each iteration, and which part of an image each digit claims."""
    table, folder = pd.DataFrame(columns=routing.COLUMNS), arguments.figures
    if routes:
        table, claims = routing.watch_routing(subject, num_examples)
        title = f"{arguments.run}: what happens in each iteration of the routing"
        trained = subject.model.digit.num_iterations
        draw_routing(table, folder / "routing.png", title=title, trained=trained)
        title = f"{arguments.run}: which part of the image each digit claims"
        draw_couplings(claims, folder / "couplings.png", title=title)
    write_csv(arguments.routing, table)


def study_robustness(subject: Subject, config: RunConfig, arguments: argparse.Namespace) -> None:
    """Under affine transformations that training did not show; of one digit to an image only."""
    table = pd.DataFrame(columns=robustness.COLUMNS)
    if subject.num_digits == 1:
        affnist = Path(config.data.affnist) if config.data.affnist else None
        few = config.study_examples
        table = robustness.robustness_table(subject, few, affnist)
        table.loc[len(table)] = study_random_affine(subject, config, arguments)
    write_csv(arguments.robustness, table)


def study_random_affine(
    subject: Subject, config: RunConfig, arguments: argparse.Namespace
) -> dict[str, object]:
    """The teaching notebook's test: its figure, and its row in the table of robustness."""
    degrees, share = config.evaluate.affine_degrees, config.evaluate.affine_translate
    images, moved, outcome = robustness.random_affine(subject, degrees, share)
    first = slice(NUM_TRANSFORMED)
    figures.transformed(
        *(part[first].cpu().numpy() / 255 for part in (images, moved)),
        outcome.labels[first, 0].numpy(),
        outcome.predictions[first, 0].numpy(),
        arguments.figures / "affine.png",
        title=f"{arguments.run}: rotated by up to {degrees:g} degrees and shifted by up to "
        f"{100 * share:g} %",
    )
    return robustness.row("random_affine", None, errors.error_row(outcome.correct))


if __name__ == "__main__":
    run(main, "evaluate")
