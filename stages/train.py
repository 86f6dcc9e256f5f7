"""Train the network of one run and write its checkpoint and training curve.

The test split is never read here, only hashed for the log: the validation digits are drawn from the
training split, the same for every run.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.train` in the repository root")

from contextlib import redirect_stdout
from itertools import chain

import pandas as pd
import torch
from tqdm import tqdm

from capsnet.files import write_csv, write_json
from capsnet.learning.device import choose_device, peak
from capsnet.learning.distributed import init_distributed
from capsnet.learning.log import HEADER, summary
from capsnet.learning.resume import only_one, states_folder
from capsnet.nn.registry import multiply_adds
from capsnet.paths import RunPaths
from capsnet.provenance import record as provenance
from capsnet.tracking import Tracker, track
from stages.build import Training
from stages.command import configuration, run, run_parser


def main() -> None:
    arguments = run_parser(__spec__.name, __doc__).parse_args()
    config, paths = configuration(arguments)
    device = choose_device()
    with init_distributed(device) as distributed:
        if not distributed.first:  # trains its shard; rank 0 writes and logs
            with redirect_stdout(None):
                for _ in Training(config, paths.digits, device, distributed).records():
                    pass
            return
        log = track("train", config.name, **config.logged())
        with only_one(states_folder(), paths.model), log as tracker:
            training = Training(config, paths.digits, device, distributed)
            train(training, paths, tracker, study=arguments.study)


def train(training: Training, paths: RunPaths, tracker: Tracker, *, study: bool) -> None:
    """Train, and write checkpoint, curve and metrics; the study also keeps a record."""
    config, trainer, device = training.config, training.trainer, training.digits.images.device
    begun, digits = provenance(device, trainer.dtype), len(training.digits)
    tracker.dataset(paths.digits, name=config.source, split="train", num_examples=digits)
    if training.resumed_after > 0:
        tracker.tag("resumed", f"after step {training.resumed_after}")
    examples = f"{config.task.training_examples:,} images"
    processes = f"{training.distributed.size} x {device.type}, {trainer.dtype}"
    print(f"{config.name}: {config.network} on {examples}, {processes}\n{HEADER}")
    network = {"num_parameters": sum(each.numel() for each in trainer.model.parameters())}
    network |= {"multiply_adds": multiply_adds(config.network, training.arguments)}
    tracker.parameters(network | {"precision": begun["precision"]})
    for record in chain([*trainer.history], training.records()):  # first those from before
        tqdm.write(record.line())
        tracker.metrics(record.metrics(), step=record.examples)
        memory = {"peak_memory_mib": peak(torch.device("cpu")) / 2**20}
        write_csv(paths.curve, pd.DataFrame(trainer.history).assign(**network, **memory))
    last, headline = trainer.history[-1], summary(trainer.history)
    training.save(paths.model)
    write_json(paths.reports / "training.json", {config.budget: {config.name: headline}})
    if study:
        end = {"examples": last.examples, "seconds": last.seconds}
        write_json(paths.reports / "record.json", begun | end)
    tracker.metrics({"minutes": headline["minutes"]}, step=last.examples)
    tracker.artifact(paths.curve)
    tracker.checkpoint(paths.model)
    if not study:  # the networks of a study are compared, not served
        digits += len(training.validation)
        tracker.model(paths.model, validation_error=last.validation_error, num_digits=digits)
    training.saved.remove()


if __name__ == "__main__":
    run(main, "train")
