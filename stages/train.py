"""Stage `train@<run>`: training digits and params.yaml -> one trained network and its training
curve.

The test split is never read here (only hashed, for the log): the validation digits are drawn from
the training split, the same for every run.
"""

import argparse
import resource
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from capsnet.checkpoint import save
from capsnet.data.batches import Batch, evaluation_batches, seeded_generator, training_batches
from capsnet.data.mnist import Digits, load_digits, split_validation
from capsnet.device import choose_device, choose_dtype, keep_freed_memory
from capsnet.evidence import evidence_limit
from capsnet.losses import margin_loss, sigmoid_loss, softmax_loss, weighted_losses
from capsnet.networks import multiply_adds, network_class
from capsnet.params import Budget, Params, load_params
from capsnet.reading.registry import register
from capsnet.resume import SavedState, folder_of_states, only_one
from capsnet.runs import TaskNumbers, params_of, task_of, used_parameters
from capsnet.tracking import track
from capsnet.training import Facts, exponential, fit, one_cycle
from stages.command import parser_of_a_run, run
from stages.inputs import ROOT, inputs_of
from stages.output import write_csv, write_json

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
    arguments = parser.parse_args()
    params = params_of(load_params(also=arguments.also), arguments.run)
    used = used_parameters(params, arguments.run)
    with (
        only_one(folder_of_states(ROOT), arguments.model),
        track("train", arguments.run, parameters=used) as tracker,
    ):
        train(params, arguments, tracker)


def train(params: Params, arguments: argparse.Namespace, tracker) -> None:
    task, budget = task_of(params, arguments.run), params.chosen_budget
    network = params.runs[arguments.run].network
    keep_freed_memory()
    device = choose_device()
    dtype = choose_dtype(params.optimizer.precision, device)
    digits = load_digits(arguments.digits, "train").to(device)
    generator = seeded_generator("validation", params.evaluate.seed)
    training, validation = split_validation(digits, params.data.validation_fraction, generator)
    tracker.dataset(arguments.digits, name=budget.source, split="train", num_examples=len(training))

    torch.manual_seed(params.seed)
    network_sizes = network_arguments(params, network, task)
    model = network_class(network)(**network_sizes).to(device)
    optimizer = adam(model, params)
    num_steps = -(-task.training_examples // task.batch_size)
    inputs = inputs_of("train", arguments.run, arguments.digits, arguments.also)
    inputs |= {"device": str(device), "precision": str(dtype)}
    saved = SavedState(folder_of_states(ROOT), arguments.run, inputs, every=params.train.save_every)
    progress, rows = saved.load(model, optimizer)
    if progress.step > 0:
        tracker.tag("resumed", f"after step {progress.step}")
    batches = training_batches(
        training,
        progress_bar(progress.step, num_steps, arguments.run),
        seed=params.seed,
        batch_size=task.batch_size,
        num_digits=task.num_digits,
        image_size=task.image_size,
        max_shift=task.training_shift,
    )
    check = partial(
        evaluation_batches,
        seed=params.evaluate.seed,
        batch_size=params.evaluate.batch_size,
        num_digits=task.num_digits,
        image_size=task.image_size,
        max_shift=task.test_shift,
    )

    def examples(digits: Digits, last: bool) -> Iterable[Batch]:
        """Of either error; in the last row of the curve as many as there are validation digits."""
        few = len(validation) if last else min(CHECKED, len(validation))
        return check(digits, num_examples=few)

    next(iter(examples(validation, False)), None)  # too few digits for a pair stop here, not later
    classify = classification_loss(params, network, task)
    facts = fit(
        model,
        batches,
        num_steps=num_steps,
        num_intervals=min(num_steps, params.optimizer.intervals),
        optimizer=optimizer,
        learning_rate=schedule(budget, num_steps),
        compute_losses=lambda prediction, reconstructions, batch: weighted_losses(
            prediction.lengths,
            batch.targets,
            reconstructions,
            batch.sources,
            classification=classify,
            reconstruction_weight=params.loss.reconstruction_weight,
        ),
        validation_batches=partial(examples, validation),
        seen_batches=partial(examples, training),
        dtype=dtype,
        progress=progress,
        after_step=lambda now: saved.save_if_due(model, optimizer, now, rows),
    )
    print(
        f"{arguments.run}: {network} on {task.training_examples:,} images, {device}, {dtype}\n"
        f"{HEADER}"
    )
    of_the_network = {
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": multiply_adds(network, network_sizes),
    }

    def report(row: Facts) -> None:
        tqdm.write(format_row(row))
        tracker.metrics(row._asdict(), step=row.examples)
        curve = pd.DataFrame(rows).assign(**of_the_network, peak_memory_mib=peak_mib())
        write_csv(arguments.curve, curve)

    for row in rows:  # of before an interruption
        report(row)
    for row in facts:
        rows.append(row)
        report(row)
    few = min(500, 10 * len(validation))  # a pair network has new pairs of the same digits
    save(
        model,
        arguments.model,
        network=network,
        arguments=network_sizes,
        validation_error=rows[-1].validation_error,
        evidence_limit=evidence_limit(model, check(validation, num_examples=few), dtype),
    )
    headline = summarise(rows)
    write_json(arguments.metrics, {arguments.run: headline})
    once = {name: headline[name] for name in ("images_per_second", "minutes")}  # not in the curve
    tracker.metrics(once, step=rows[-1].examples)
    tracker.artifact(arguments.curve)
    tracker.checkpoint(arguments.model)
    tracker.model(register, arguments.model)
    saved.remove()


def network_arguments(params: Params, network: str, task: TaskNumbers) -> dict[str, object]:
    """Keyword arguments of the network's class; they go into the checkpoint and rebuild it."""
    if network == "baseline":
        return {
            "image_size": task.image_size,
            "num_digits": task.num_digits,
            "dropout": params.network.dropout,
        }
    sizes, routing = params.network.model_dump(), params.routing.model_dump()
    del sizes["dropout"]
    if network == "convnet":
        del sizes["init"], sizes["weight_std"]
        routing = {}
    else:
        routing["num_iterations"] = routing.pop("iterations")
    if params.loss.reconstruction_weight == 0:
        sizes["decoder_sizes"] = None
    return {"image_size": task.image_size, **sizes, **routing}


def classification_loss(
    params: Params, network: str, task: TaskNumbers
) -> Callable[[Tensor, Tensor], Tensor]:
    """Eq. 4 for capsules; the baselines have a cross-entropy each, as published."""
    if network == "baseline":
        return softmax_loss if task.num_digits == 1 else sigmoid_loss
    margins = params.loss.model_dump(exclude={"reconstruction_weight"})
    return partial(margin_loss, **margins)


def adam(model: torch.nn.Module, params: Params) -> torch.optim.Adam:
    betas = (params.optimizer.beta1, params.optimizer.beta2)
    return torch.optim.Adam(
        model.parameters(), betas=betas, eps=params.optimizer.epsilon, fused=True
    )


def schedule(budget: Budget, num_steps: int):
    rate = budget.learning_rate.model_dump()
    if rate.pop("schedule") == "one_cycle":
        return partial(one_cycle, num_steps=num_steps, **rate)
    return partial(exponential, **rate)


def progress_bar(start: int, num_steps: int, run: str) -> tqdm:
    """A bar for a person at a terminal; in a log the table's rows are the progress."""
    steps, silent = range(start, num_steps), not sys.stderr.isatty()
    return tqdm(
        steps, run, total=num_steps, initial=start, unit="batch", disable=silent, leave=False
    )


def format_row(row: Facts) -> str:
    return (
        f"{row.examples:10,}  {row.loss:8.4f}  {row.classification_loss:14.4f}  "
        f"{row.reconstruction_loss:14.2f}  {row.validation_error:10.2f}  "
        f"{row.training_error:8.2f}  {row.learning_rate:13.6f}  "
        f"{row.images_per_second:8.0f}  {row.seconds:6.0f}"
    )


def summarise(rows: list[Facts]) -> dict[str, float]:
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
