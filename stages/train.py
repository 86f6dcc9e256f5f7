"""Train the network of one run and write its checkpoint and training curve.

The test split is never read here, only hashed for the log: the validation digits are drawn from the
training split, the same for every run.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.train` in the repository root")

from contextlib import redirect_stdout

import pandas as pd
import torch
from tqdm import tqdm

from capsnet.checkpoint import save
from capsnet.config import RunConfig
from capsnet.files import write_csv, write_json
from capsnet.learning.device import choose_device, peak
from capsnet.learning.distributed import init_distributed
from capsnet.learning.log import HEADER, LogRecord, summary
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
        with (
            only_one(states_folder(), paths.model),
            track(
                "train",
                config.name,
                parameters=config.parameters(),
                configuration=config.model_dump(mode="json"),
            ) as tracker,
        ):
            training = Training(config, paths.digits, device, distributed)
            train(training, config, paths, tracker, study=arguments.study)


def train(
    training: Training, config: RunConfig, paths: RunPaths, tracker: Tracker, *, study: bool
) -> None:
    """Train, and write checkpoint, curve and metrics; the study also keeps a record."""
    trainer, device = training.trainer, training.digits.images.device
    begun = provenance(device, trainer.dtype)
    tracker.dataset(
        paths.digits, name=config.source, split="train", num_examples=len(training.digits)
    )
    if training.resumed_after > 0:
        tracker.tag("resumed", f"after step {training.resumed_after}")
    examples = f"{config.task.training_examples:,} images"
    processes = f"{training.distributed.size} x {device.type}, {trainer.dtype}"
    print(f"{config.name}: {config.network} on {examples}, {processes}\n{HEADER}")
    network = {
        "num_parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "multiply_adds": multiply_adds(config.network, training.arguments),
    }
    tracker.parameters(network | {"precision": begun["precision"]})

    def report(record: LogRecord) -> None:
        tqdm.write(record.line())
        tracker.metrics(record.metrics(), step=record.examples)
        memory = {"peak_memory_mib": peak(torch.device("cpu")) / 2**20}
        write_csv(paths.curve, pd.DataFrame(trainer.history).assign(**network, **memory))

    for record in [*trainer.history]:  # of before an interruption
        report(record)
    for record in training.records():
        report(record)
    last, headline = trainer.history[-1], summary(trainer.history)
    save(
        trainer.model,
        paths.model,
        network=config.network,
        arguments=training.arguments,
        num_digits=config.task.num_digits,
        data=training.digits.about.differing(),
        validation_error=last.validation_error,
        rejection_threshold=training.rejection_threshold(),
    )
    write_json(paths.reports / "training.json", {config.budget: {config.name: headline}})
    if study:
        end = {"examples": last.examples, "seconds": last.seconds}
        write_json(paths.reports / "record.json", begun | end)
    tracker.metrics({"minutes": headline["minutes"]}, step=last.examples)
    tracker.artifact(paths.curve)
    tracker.checkpoint(paths.model)
    if not study:  # the networks of a study are compared, not served
        tracker.model(
            paths.model,
            validation_error=last.validation_error,
            num_digits=len(training.digits) + len(training.validation),
        )
    training.saved.remove()


if __name__ == "__main__":
    run(main, "train")
