"""Stage `evaluate@<run>`: a network and the test split -> headline numbers, tables and figures.

MNIST: every test digit once, unshifted. MultiMNIST: a fixed set of test pairs, the same for every
run. The headline numbers and the errors are of the whole test, the other topics of its first
examples.
"""

import argparse
from pathlib import Path

import pandas as pd

from capsnet.config import RunConfig, load, resolve
from capsnet.data.archives import NUM_CLASSES
from capsnet.files import file_md5
from capsnet.learning.device import choose_device
from capsnet.learning.distributed import joined
from capsnet.learning.evaluation import Outcome, Subject
from capsnet.losses import THRESHOLD
from capsnet.metrics import error_row
from capsnet.nn.registry import NETWORKS
from capsnet.studies.calibration import measure as calibration
from capsnet.studies.calibration.draw import calibration as draw_calibration
from capsnet.studies.errors import draw as errors_drawn
from capsnet.studies.errors import measure as errors
from capsnet.studies.reconstructions import draw as reconstructions_drawn
from capsnet.studies.reconstructions import measure as reconstructions
from capsnet.studies.robustness import measure as robustness
from capsnet.studies.robustness.draw import transformed
from capsnet.studies.routing import measure as routing
from capsnet.studies.routing.draw import couplings as draw_couplings
from capsnet.studies.routing.draw import routing as draw_routing
from capsnet.studies.separation.measure import separation_table
from capsnet.studies.training.draw import training_curve
from capsnet.tracking import track
from stages.command import parser_of_a_run, run
from stages.evaluator import subject_of
from stages.output import write_csv, write_json

LISTED = 100_000  # examples whose answer is listed one by one, at most: of 10M pairs the first
NUM_TRANSFORMED = 16  # digits in the figure of the affine test


def main() -> None:
    parser = parser_of_a_run(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to evaluate")
    parser.add_argument("--out", type=Path, required=True, help="folder of tables and figures")
    parser.add_argument("--curve", type=Path, help="training curve to draw, CSV (topic training)")
    words = f"comma between, of {','.join(TOPICS)} (default: all)"
    parser.add_argument("--topics", type=topics_of, default=list(TOPICS), help=words)
    parser.add_argument("--no-figures", action="store_true", help="write the tables alone")
    arguments = parser.parse_args()
    if "training" in arguments.topics and not (arguments.curve or arguments.no_figures):
        parser.error("topic training: --curve is missing")
    config = resolve(load(override=arguments.override, run=arguments.run), arguments.run)
    device = choose_device()
    with joined(device) as ranks:
        ranks.agree(f"networks in {arguments.model}", file_md5(arguments.model))

        def judged() -> tuple[Subject, Outcome]:
            """The answers to the whole test; each process shows the network its share."""
            subject = subject_of(config, arguments.model, arguments.digits, device)
            many = config.task.test_examples or len(subject.digits)
            return subject, subject.judge(many, ranks)

        if not ranks.first:
            judged()
            return
        with track(
            "evaluate", arguments.run, parameters=config.model_dump(), checkpoint=arguments.model
        ) as tracker:
            evaluate(*judged(), config, arguments, tracker)


def topics_of(text: str) -> list[str]:
    """Names with a comma between them."""
    topics = text.split(",")
    for topic in topics:
        if topic not in TOPICS:
            raise argparse.ArgumentTypeError(f"got {topic!r}, wanted some of {', '.join(TOPICS)}")
    return topics


def evaluate(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace, tracker
) -> None:
    """Write the headline numbers and every topic, and log them."""
    num_examples, source = len(outcome.labels), config.source
    tracker.dataset(arguments.digits, name=source, split="test", num_examples=num_examples)
    headline = errors.headline(outcome)
    write_json(arguments.out / "metrics.json", {arguments.run: headline})
    tracker.headline(headline)
    tracker.artifact(arguments.out / "metrics.json")
    interval = f"{headline['error_low']:.2f} to {headline['error_high']:.2f}"
    found = f"test error {headline['error']:.2f} % ({interval}) of {num_examples:,} examples"
    print(f"{arguments.run}: {found}")
    for topic in arguments.topics:
        for name, table in TOPICS[topic](subject, outcome, config, arguments).items():
            write_csv(arguments.out / f"{name}.csv", table)
            tracker.artifact(arguments.out / f"{name}.csv")
    if (arguments.out / "figures").exists():
        tracker.artifact(arguments.out / "figures", folder="figures")


Tables = dict[str, pd.DataFrame]  # name of the CSV file -> table


def few_of(config: RunConfig, outcome: Outcome) -> int:
    return min(config.study_examples, len(outcome.labels))


def study_errors(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace
) -> Tables:
    """By pair, by overlap, and which digit was taken for which."""
    table, confusion = errors.error_table(outcome), errors.confusion_table(outcome)
    if not arguments.no_figures:
        draw_errors(table, confusion, arguments)
    listed = pd.DataFrame({"right": outcome.correct[:LISTED].int()})
    return {"errors": table, "confusion": confusion, "examples": listed}


def draw_errors(
    table: pd.DataFrame, confusion: pd.DataFrame, arguments: argparse.Namespace
) -> None:
    folder, name = arguments.out / "figures", arguments.run
    title = f"{name}: which digit was taken for which"
    counts = confusion["count"].to_numpy().reshape(NUM_CLASSES, NUM_CLASSES)
    errors_drawn.confusion(counts, folder / "confusion.png", title=title)
    by_overlap = table[table["group"] == "overlap"]
    if len(by_overlap):
        title = f"{name}: error by pair of digits"
        errors_drawn.pair_errors(errors.pair_matrix(table), folder / "pairs.png", title=title)
        title = f"{name}: error by overlap of the two digits"
        errors_drawn.error_by_overlap(by_overlap, folder / "overlap.png", title=title)


def study_separation(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace
) -> Tables:
    return {"separation": separation_table(subject, few_of(config, outcome))}


def study_training(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace
) -> Tables:
    if not arguments.no_figures:
        title, path = f"{arguments.run}: training loss and error", arguments.out / "figures"
        curve = pd.read_csv(arguments.curve)
        training_curve(curve, path / "training.png", title=title)
    return {}


def study_reconstructions(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace
) -> Tables:
    """Figure 3 of the paper, or Figure 5 for two digits to an image."""
    path, name = arguments.out / "figures" / "reconstructions.png", arguments.run
    if subject.model.decoder is None or arguments.no_figures:
        return {}
    if subject.num_digits == 1:
        shown = reconstructions.single_reconstructions(subject, outcome)
        reconstructions_drawn.reconstructions(
            shown, path, title=f"{name}: test digits and their reconstructions"
        )
    else:
        shown = reconstructions.overlaid_reconstructions(subject, outcome)
        reconstructions_drawn.overlaid_reconstructions(
            shown, path, title=f"{name}: two digits, told apart"
        )
    return {}


def study_calibration(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace
) -> Tables:
    """Are lengths probabilities, and how many digits are seen?"""
    network = NETWORKS[config.network]
    bins = calibration.reliability_table(outcome, capsules=network.gives_lengths)
    shifted = subject._replace(max_shift=config.task.training_shift)
    counts = calibration.count_table(shifted, config.study_examples)
    if not arguments.no_figures:
        draw_calibration(
            bins,
            counts,
            arguments.out / "figures" / "calibration.png",
            title=f"{arguments.run}: are lengths probabilities, and how many digits are seen?",
            error=calibration.expected_calibration_error(bins),
            threshold=THRESHOLD,
            trained_on="one digit" if subject.num_digits == 1 else "two digits",
        )
    return {"calibration": bins, "counts": counts}


def study_routing(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace
) -> Tables:
    """What happens in each iteration, and which part of an image each digit claims."""
    if not NETWORKS[config.network].routes:
        return {"routing": pd.DataFrame(columns=routing.COLUMNS)}
    table, claims = routing.watch_routing(subject, few_of(config, outcome))
    if not arguments.no_figures:
        folder, trained = arguments.out / "figures", subject.model.digit.num_iterations
        title = f"{arguments.run}: what happens in each iteration of the routing"
        draw_routing(table, folder / "routing.png", title=title, trained=trained)
        title = f"{arguments.run}: which part of the image each digit claims"
        draw_couplings(claims, folder / "couplings.png", title=title)
    return {"routing": table}


def study_robustness(
    subject: Subject, outcome: Outcome, config: RunConfig, arguments: argparse.Namespace
) -> Tables:
    """Under affine transformations that training did not show; of one digit to an image only."""
    if subject.num_digits > 1:
        return {"robustness": pd.DataFrame(columns=robustness.COLUMNS)}
    affnist = Path(config.data.affnist) if config.data.affnist else None
    few = config.study_examples
    table = robustness.robustness_table(subject, few, affnist)
    table.loc[len(table)] = study_random_affine(subject, config, arguments)
    return {"robustness": table}


def study_random_affine(
    subject: Subject, config: RunConfig, arguments: argparse.Namespace
) -> dict[str, object]:
    """The teaching notebook's test: its figure, and its row in the table of robustness."""
    degrees, share = config.evaluate.affine_degrees, config.evaluate.affine_translate
    images, moved, outcome = robustness.random_affine(subject, degrees, share)
    first = slice(NUM_TRANSFORMED)
    if not arguments.no_figures:
        transformed(
            *(part[first].cpu().numpy() / 255 for part in (images, moved)),
            outcome.labels[first, 0].numpy(),
            outcome.predictions[first, 0].numpy(),
            arguments.out / "figures" / "affine.png",
            title=f"{arguments.run}: rotated by up to {degrees:g} degrees and shifted by up to "
            f"{100 * share:g} %",
        )
    return robustness.row("random_affine", None, error_row(outcome.correct))


TOPICS = {
    "errors": study_errors,
    "separation": study_separation,
    "training": study_training,
    "reconstructions": study_reconstructions,
    "calibration": study_calibration,
    "routing": study_routing,
    "robustness": study_robustness,
}


if __name__ == "__main__":
    run(main, "evaluate")
