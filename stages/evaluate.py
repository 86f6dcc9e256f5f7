"""Stage `evaluate@<run>`: a network and the test split -> metrics, tables and figures.

MNIST: every test digit once, unshifted. MultiMNIST: a fixed set of test pairs, the same for every
run. Figures 3 and 5 of the paper; for one digit to an image also the teaching notebook's test under
affine transformations. Then the studies on fewer examples: what routing does, how robust the
network is, whether its lengths are probabilities.
"""

import argparse
import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms import RandomAffine

from capsnet import figures, metrics
from capsnet.checkpoint import load
from capsnet.data.batches import evaluation_batches
from capsnet.data.mnist import NUM_CLASSES, Digits, load_digits
from capsnet.device import choose_dtype, keep_freed_memory
from capsnet.evaluation import Outcome, judge
from capsnet.params import Evaluate, Params, load_params, params_of, task_of, used_parameters
from capsnet.studies import robustness, routing
from capsnet.studies.reconstructions import NUM_SHOWN, draw_reconstructions
from capsnet.studies.robustness import measure_robustness
from capsnet.studies.routing import observe_routing
from capsnet.tracking import track
from stages.calibration import draw_calibration, measure_calibration, measure_counts
from stages.command import run
from stages.output import write_csv, write_json

OVERLAP_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # shared ink over the smaller digit's ink


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="key of `runs` in params.yaml")
    parser.add_argument("--digits", type=Path, required=True, help="folder of the four archives")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to evaluate")
    parser.add_argument("--curve", type=Path, required=True, help="training curve to draw, CSV")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics to write, JSON")
    parser.add_argument("--errors", type=Path, required=True, help="error by group to write, CSV")
    parser.add_argument("--confusion", type=Path, required=True, help="confusion to write, CSV")
    parser.add_argument("--routing", type=Path, required=True, help="routing to write, CSV")
    parser.add_argument("--robustness", type=Path, required=True, help="robustness, CSV")
    parser.add_argument("--calibration", type=Path, required=True, help="reliability, CSV")
    parser.add_argument("--counts", type=Path, required=True, help="digits counted, CSV")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    arguments = parser.parse_args()
    params = params_of(load_params(), arguments.run)
    with track(
        "evaluate",
        arguments.run,
        parameters=used_parameters(params, arguments.run),
        checkpoint=arguments.model,
    ) as tracker:
        evaluate(params, arguments, tracker)


def evaluate(params: Params, arguments: argparse.Namespace, tracker) -> None:
    task, name = task_of(params, arguments.run), arguments.run
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load(arguments.model).to(device)
    dtype = choose_dtype(params.optimizer.precision, device)
    digits = load_digits(arguments.digits, "test").to(device)
    batches = partial(
        evaluation_batches,
        digits,
        seed=params.evaluate.seed,
        batch_size=params.evaluate.batch_size,
        num_digits=task.num_digits,
        image_size=task.image_size,
        max_shift=task.test_shift,
    )
    num_examples = task.test_examples or len(digits)
    tracker.dataset(
        arguments.digits, name=params.chosen_budget.source, split="test", num_examples=num_examples
    )
    outcome = judge(model, batches(num_examples=num_examples), dtype)
    errors = error_table(outcome)
    results = headline(outcome)
    counts = metrics.confusion(outcome.predictions, outcome.labels, NUM_CLASSES)
    write_csv(arguments.confusion, confusion_table(counts))
    write_csv(arguments.errors, errors)

    folder = arguments.figures
    curve, title = pd.read_csv(arguments.curve), f"{name}: training loss and validation error"
    figures.training_curve(curve, folder / "training.png", title=title)
    figures.confusion(
        counts.numpy(), folder / "confusion.png", title=f"{name}: which digit was taken for which"
    )
    if model.decoder is not None:
        draw_reconstructions(model, outcome, batches, dtype, folder, name)
    if task.num_digits == 1:
        results["affine"] = affine_test(model, digits, params.evaluate, dtype, folder, name)
    else:
        draw_overlaps(outcome, errors, folder, name)
    results |= study(params, arguments, model, digits, batches, outcome, dtype)
    write_json(arguments.metrics, {name: results})

    tracker.headline({key: value for key, value in results.items() if key in HEADLINES})
    tracker.metrics(results)
    for path in (arguments.metrics, *(getattr(arguments, name) for name in TABLES)):
        tracker.artifact(path)
    tracker.artifact(folder, folder="figures")
    interval = f"{results['error_low']:.2f} to {results['error_high']:.2f}"
    print(f"{name}: test error {results['error']:.2f} % ({interval}) of {num_examples:,} examples")


HEADLINES = (
    "error",
    "error_low",
    "error_high",
    "reconstruction_error",
    "calibration_error",
)
TABLES = ("errors", "confusion", "routing", "robustness", "calibration", "counts")


def study(
    params: Params,
    arguments: argparse.Namespace,
    model: nn.Module,
    digits: Digits,
    batches,
    outcome: Outcome,
    dtype: torch.dtype,
) -> dict[str, object]:
    """What routing does, how robust the network is, what its lengths promise: headline numbers."""
    task, name, folder = task_of(params, arguments.run), arguments.run, arguments.figures
    capsules = params.runs[name].network == "capsnet"
    settings = {
        "dtype": dtype,
        "seed": params.evaluate.seed,
        "num_examples": params.chosen_budget.study_examples,
        "batch_size": params.evaluate.batch_size,
        "image_size": task.image_size,
    }
    bins, results = measure_calibration(outcome, capsules=capsules, table=arguments.calibration)
    counts, found = measure_counts(
        model,
        digits,
        num_digits=task.num_digits,
        max_shift=task.training_shift,
        table=arguments.counts,
        **settings,
    )
    results |= found
    error, num_digits = results["calibration_error"], task.num_digits
    draw_calibration(bins, counts, error=error, num_digits=num_digits, folder=folder, name=name)
    if capsules:
        results["routing"] = observe_routing(
            model,
            batches,
            dtype=dtype,
            num_examples=min(settings["num_examples"], len(outcome.labels)),
            table=arguments.routing,
            folder=folder,
            name=name,
        )
    else:
        write_csv(arguments.routing, pd.DataFrame(columns=routing.COLUMNS))
    if task.num_digits == 1:
        results["robustness"] = measure_robustness(
            model,
            digits,
            max_shift=task.test_shift,
            affnist=Path(params.data.affnist) if params.data.affnist else None,
            table=arguments.robustness,
            name=name,
            **settings,
        )
    else:
        write_csv(arguments.robustness, pd.DataFrame(columns=robustness.COLUMNS))
    return results


def headline(outcome: Outcome) -> dict[str, object]:
    num_errors, num_examples = int((~outcome.correct).sum()), len(outcome.labels)
    interval = metrics.wilson_interval(num_errors, num_examples)
    return {
        "error": interval.value,
        "error_low": interval.low,
        "error_high": interval.high,
        "examples": num_examples,
        "reconstruction_error": outcome.reconstruction_error.mean().item(),
    }


def error_table(outcome: Outcome) -> pd.DataFrame:
    """Error in percent with its interval, by digit, by pair of digits and by overlap: one tidy
    table.
    """
    correct, labels = outcome.correct, outcome.labels
    hits = metrics.found(outcome.predictions, labels)
    rows = [_row("digit", str(digit), hits[labels == digit]) for digit in range(NUM_CLASSES)]
    if labels.shape[1] > 1:
        low, high = labels.min(dim=1).values, labels.max(dim=1).values
        for first in range(NUM_CLASSES):
            for second in range(first + 1, NUM_CLASSES):
                chosen = (low == first) & (high == second)
                rows.append(_row("pair", f"{first} and {second}", correct[chosen]))
        for start, end in itertools.pairwise(OVERLAP_EDGES):
            chosen = (outcome.overlap >= start) & (
                (outcome.overlap < end) | (end == OVERLAP_EDGES[-1])
            )
            rows.append(_row("overlap", f"{100 * start:.0f} to {100 * end:.0f} %", correct[chosen]))
    return pd.DataFrame([row for row in rows if row["examples"] > 0])


def _row(group: str, name: str, correct: Tensor) -> dict[str, object]:
    num_examples = len(correct)
    if num_examples == 0:
        return {"group": group, "name": name, "examples": 0}
    interval = metrics.wilson_interval(int((~correct).sum()), num_examples)
    return {
        "group": group,
        "name": name,
        "examples": num_examples,
        "error": interval.value,
        "error_low": interval.low,
        "error_high": interval.high,
    }


def confusion_table(counts: Tensor) -> pd.DataFrame:
    size = len(counts)
    true, predicted = np.divmod(np.arange(size**2), size)
    return pd.DataFrame({"label": true, "prediction": predicted, "count": counts.flatten().numpy()})


def draw_overlaps(outcome: Outcome, errors: pd.DataFrame, folder: Path, name: str) -> None:
    pairs = metrics.pair_error(outcome.correct, outcome.labels, NUM_CLASSES)
    figures.pair_errors(
        pairs.numpy(), folder / "pairs.png", title=f"{name}: error by pair of digits"
    )
    table = errors[errors["group"] == "overlap"].rename(columns={"examples": "pairs"})
    edges = table["name"].str.extract(r"(\d+) to (\d+)").astype(float) / 100
    table = table.assign(overlap_low=edges[0], overlap_high=edges[1]).reset_index(drop=True)
    figures.error_by_overlap(
        table, folder / "overlap.png", title=f"{name}: error by overlap of the two digits"
    )


def affine_test(
    model: nn.Module,
    digits: Digits,
    settings: Evaluate,
    dtype: torch.dtype,
    folder: Path,
    name: str,
) -> dict[str, float]:
    """Error on test digits under RandomAffine, each digit with its own rotation and shift."""
    translate = (settings.affine_translate, settings.affine_translate)
    affine = RandomAffine(settings.affine_degrees, translate)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)  # torchvision draws from the global generator
        moved = torch.stack([affine(image[None])[0] for image in digits.images.cpu()])
    moved = moved.to(digits.images.device)
    batches = evaluation_batches(
        Digits(moved, digits.labels),
        seed=settings.seed,
        num_examples=len(digits),
        batch_size=settings.batch_size,
        num_digits=1,
        image_size=moved.shape[-1],
        max_shift=0,
    )
    outcome = judge(model, batches, dtype)
    figures.transformed(
        digits.images[: 2 * NUM_SHOWN].cpu().numpy() / 255,
        moved[: 2 * NUM_SHOWN].cpu().numpy() / 255,
        digits.labels[: 2 * NUM_SHOWN].cpu().numpy(),
        outcome.predictions[: 2 * NUM_SHOWN, 0].numpy(),
        folder / "affine.png",
        title=f"{name}: rotated by up to {settings.affine_degrees:g} degrees "
        f"and shifted by up to {100 * settings.affine_translate:g} %",
    )
    interval = metrics.wilson_interval(int((~outcome.correct).sum()), len(digits))
    return {"error": interval.value, "error_low": interval.low, "error_high": interval.high}


if __name__ == "__main__":
    run(main, "evaluate")
