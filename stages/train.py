"""Stage `train@<run>`: training digits and params.yaml -> one trained network and its training
curve.

The test split is never read here (only hashed, for the log): the validation digits are drawn from
the training split, the same for every run.
"""

import argparse
import collections
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pandas as pd
import torch
from tqdm import tqdm

from capsnet.checkpoint import save
from capsnet.config import RunConfig, load, resolve
from capsnet.data.batches import (
    Batch,
    compose_batch,
    evaluation_batches,
    seeded_generator,
    training_draws,
)
from capsnet.data.mnist import Digits, load_digits, split_validation
from capsnet.learning.device import allow_tf32, choose_device, choose_dtype, keep_freed_memory
from capsnet.learning.distributed import Distributed, init_distributed
from capsnet.learning.rejection import rejection_threshold
from capsnet.learning.resume import ROOT, SavedState, folder_of_states, inputs_of, only_one
from capsnet.learning.training import LogRecord, fit
from capsnet.nn.layers import route_with
from capsnet.nn.registry import multiply_adds, network_class
from capsnet.provenance import record
from capsnet.tracking import Tracker, track
from stages.command import parser_of_a_run, run
from stages.output import write_csv, write_json
from stages.recipe import adam, losses_of, schedule

SCORED = 500  # validation examples behind the rejection threshold
CHECKED = 1000  # validation and training examples, each, behind the errors in a row of the curve
HEADER = (
    "  examples      loss  classification  reconstruction  validation  training  learning rate  "
    "images/s    time\n"
    "                                        squared px     error %   error %                  "
    "              s"
)


def main() -> None:
    parser = parser_of_a_run(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--curve", type=Path, required=True, help="training curve to write, CSV")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics to write, JSON")
    parser.add_argument("--record", type=Path, help="record of the training to write, JSON")
    arguments = parser.parse_args()
    config = resolve(load(override=arguments.override, run=arguments.run), arguments.run)
    device = choose_device()
    with init_distributed(device) as distributed:
        if not distributed.first:  # computes its share; the first one writes and logs
            with redirect_stdout(None):
                collections.deque(set_up(config, arguments, device, distributed).records, maxlen=0)
            return
        with (
            only_one(folder_of_states(ROOT), arguments.model),
            track("train", arguments.run, parameters=config.model_dump()) as tracker,
        ):
            training = set_up(config, arguments, device, distributed)
            examples = config.task.training_examples
            heading = f"on {examples:,} images, {distributed.size} x {device.type}"
            train(config, arguments, training, heading, tracker)


class Training(NamedTuple):
    """A training that is about to begin or to go on, and what it takes to tell of it."""

    model: torch.nn.Module
    records: Iterator[LogRecord]
    rows: list[LogRecord]  # of before an interruption
    saved: SavedState
    begun: int  # steps that were done before it
    num_digits: int  # that it trains on
    validate: Callable[[], Iterable[Batch]]
    dtype: torch.dtype


def set_up(
    config: RunConfig, arguments: argparse.Namespace, device: torch.device, distributed: Distributed
) -> Training:
    """The same in every process, each with its own share of the batches."""
    task = config.task
    keep_freed_memory()
    dtype = choose_dtype(config.optimizer.precision, device)
    allow_tf32(device, dtype)
    digits = load_digits(arguments.digits, "train").to(device)
    generator = seeded_generator("validation", config.evaluate.seed)
    training, validation = split_validation(digits, config.data.validation_fraction, generator)

    torch.manual_seed(config.seed)
    model = network_class(config.network)(**config.arguments).to(device)
    route_with(model, config.routing.implementation)
    optimizer = adam(model, config)
    inputs = inputs_of(config.model_dump(), arguments.digits)
    inputs |= {"device": device.type, "precision": str(dtype), "processes": str(distributed.size)}
    distributed.agree("code, parameters, digits or versions", inputs)
    saved = SavedState(folder_of_states(ROOT), arguments.run, inputs, every=config.train.save_every)
    progress, rows = saved.load(model, optimizer, distributed)
    begun, num_steps = progress.step, -(-task.training_examples // task.batch_size)
    if not distributed.first:  # other random numbers for other images: of dropout
        torch.manual_seed(seeded_generator(config.seed, distributed.rank, begun).initial_seed())
    draws = training_draws(
        training,
        progress_bar(begun, num_steps, arguments.run, silent=not distributed.first),
        seed=config.seed,
        batch_size=task.batch_size,
        num_digits=task.num_digits,
        max_shift=task.training_shift,
    )
    check = partial(
        evaluation_batches,
        seed=config.evaluate.seed,
        batch_size=config.evaluate.batch_size,
        num_digits=task.num_digits,
        image_size=task.image_size,
        max_shift=task.test_shift,
    )

    def examples(digits: Digits, last: bool) -> Iterable[Batch]:
        """Of either error; where much hangs on it as many as there are validation digits."""
        many = len(validation) or min(CHECKED, len(training))  # none: of the training digits alone
        every = last or config.stop_at_error is not None
        few = many if every else min(CHECKED, many)
        return check(digits, num_examples=few) if len(digits) > 0 else []

    next(iter(examples(validation, False)), None)  # too few digits for a pair stop here, not later
    records = fit(
        model,
        draws,
        compose=partial(compose_batch, training, image_size=task.image_size),
        num_steps=num_steps,
        num_intervals=min(num_steps, config.optimizer.intervals),
        optimizer=optimizer,
        learning_rate=schedule(config, num_steps),
        compute_losses=losses_of(config),
        validation_batches=partial(examples, validation),
        train_eval_batches=partial(examples, training),
        dtype=dtype,
        distributed=distributed,
        progress=progress,
        after_step=lambda now: saved.save_if_due(model, optimizer, now, rows, distributed),
        cuda_graph=config.train.cuda_graph == "auto",
        warn=lambda message: print(f"{arguments.run}: {message}", file=sys.stderr),
    )
    records = until(records, config.stop_at_error)
    few = min(SCORED, 10 * len(validation))  # a pair network has new pairs of the same digits
    validate = partial(check, validation, num_examples=few)
    return Training(model, records, rows, saved, begun, len(training), validate, dtype)


def until(records: Iterable[LogRecord], stop_at_error: float | None) -> Iterator[LogRecord]:
    """Log records up to the first that reaches this validation error; None: all of them."""
    for row in records:
        yield row
        if stop_at_error is not None and row.validation_error <= stop_at_error:
            return


def train(
    config: RunConfig,
    arguments: argparse.Namespace,
    training: Training,
    heading: str,
    tracker: Tracker,
) -> None:
    """Train, tell of it as it goes, and write what came of it."""
    model, rows = training.model, training.rows
    begun = record(next(model.parameters()).device, training.dtype)
    tracker.dataset(
        arguments.digits, name=config.source, split="train", num_examples=training.num_digits
    )
    if training.begun > 0:
        tracker.tag("resumed", f"after step {training.begun}")
    print(f"{arguments.run}: {config.network} {heading}, {training.dtype}\n{HEADER}")
    of_the_network = {
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": multiply_adds(config.network, config.arguments),
    }

    def report(row: LogRecord) -> None:
        tqdm.write(format_row(row))
        tracker.metrics(row._asdict(), step=row.examples)
        curve = pd.DataFrame(rows).assign(**of_the_network, peak_memory_mib=peak_mib())
        write_csv(arguments.curve, curve)

    for row in rows:  # of before an interruption
        report(row)
    for row in training.records:
        rows.append(row)
        report(row)
    threshold = rejection_threshold(model, training.validate(), training.dtype)
    save(
        model,
        arguments.model,
        network=config.network,
        arguments=config.arguments,
        num_digits=config.task.num_digits,
        validation_error=rows[-1].validation_error,
        rejection_threshold=threshold,
    )
    headline = summarise(rows)
    write_json(arguments.metrics, {arguments.run: headline})
    if arguments.record is not None:
        end = {"examples": rows[-1].examples, "seconds": rows[-1].seconds}
        write_json(arguments.record, begun | end)
    once = {name: headline[name] for name in ("images_per_second", "minutes")}  # not in the curve
    tracker.metrics(once, step=rows[-1].examples)
    tracker.artifact(arguments.curve)
    tracker.checkpoint(arguments.model)
    if arguments.override is None:  # the many networks of a study are compared, not served
        tracker.model(arguments.model)
    training.saved.remove()


def progress_bar(start: int, num_steps: int, run: str, *, silent: bool) -> tqdm:
    """A bar for a person at a terminal; in a log the table's rows are the progress."""
    steps, silent = range(start, num_steps), silent or not sys.stderr.isatty()
    return tqdm(
        steps, run, total=num_steps, initial=start, unit="batch", disable=silent, leave=False
    )


def format_row(row: LogRecord) -> str:
    return (
        f"{row.examples:10,}  {row.loss:8.4f}  {row.classification_loss:14.4f}  "
        f"{row.reconstruction_loss:14.2f}  {row.validation_error:10.2f}  "
        f"{row.training_error:8.2f}  {row.learning_rate:13.6f}  "
        f"{row.images_per_second:8.0f}  {row.seconds:6.0f}"
    )


def summarise(rows: list[LogRecord]) -> dict[str, float]:
    """The last row, and the median speed: one interval can be slow for reasons of the machine."""
    return {
        "loss": rows[-1].loss,
        "validation_error": rows[-1].validation_error,
        "images_per_second": median(row.images_per_second for row in rows),
        "minutes": rows[-1].seconds / 60,
    }


def peak_mib() -> float:
    """The most host memory that this process held so far; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    run(main, "train")
