"""From the configuration of a run to objects: a training, an evaluator."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from tqdm import tqdm

from capsnet.checkpoint import save
from capsnet.config import RunConfig
from capsnet.data import batches
from capsnet.data.batches import Batch
from capsnet.data.mnist import Digits, load_digits, split_validation, stratified_subset
from capsnet.learning.device import allow_tf32, choose_dtype, keep_freed_memory, limit_threads
from capsnet.learning.distributed import Distributed
from capsnet.learning.evaluation import Evaluator, load_evaluator
from capsnet.learning.log import LogRecord, progress_line, repeated
from capsnet.learning.rejection import rejection_threshold
from capsnet.learning.resume import SavedState, inputs_of, states_folder
from capsnet.learning.schedules import exponential, one_cycle
from capsnet.learning.step import ComputeLosses
from capsnet.learning.training import Trainer
from capsnet.losses import weighted_losses
from capsnet.metrics import imbalance
from capsnet.nn.layers import route_with
from capsnet.nn.registry import classification_loss, network_class

SCORED = 500  # validation examples behind the rejection threshold
CHECKED = 1000  # examples behind each error of a log record


class Training:
    """One training: its digits, its trainer and its saved state, which it continues."""

    def __init__(
        self, config: RunConfig, digits: Path, device: torch.device, distributed: Distributed
    ) -> None:
        keep_freed_memory()
        self.config, self.distributed = config, distributed
        self.num_steps = -(-config.task.training_examples // config.task.batch_size)
        dtype = choose_dtype(config.optimizer.precision, device)
        allow_tf32(device, dtype)
        images = load_digits(digits, "train")
        self.arguments = config.arguments | images.arguments()
        fraction, drawn = config.data.validation_fraction, config.evaluate.seed
        self.digits, self.validation = split_validation(
            images.to(device), fraction, batches.seeded_generator("validation", drawn)
        )
        if config.data.training_digits is not None:
            drawn = batches.seeded_generator("training digits", config.seed)
            self.digits = stratified_subset(self.digits, config.data.training_digits, drawn)
        kinds = len(self.validation.labels.unique())
        if 0 < kinds < config.task.num_digits:
            found = f"{fraction} of {len(images)} images is {len(self.validation)} of one class"
            raise ValueError(f"data.validation_fraction: {found}, pairs need two: more, or 0.0")
        warn_of_imbalance(config, self.digits)
        inputs = inputs_of(config.model_dump(), digits)
        inputs |= {"device": device.type, "precision": str(dtype)}
        inputs |= {"processes": str(distributed.size)}
        distributed.agree("code, parameters, digits or versions", inputs)
        torch.manual_seed(config.seed)
        model = network_class(config.network)(**self.arguments).to(device)
        limit_threads(model)
        route_with(model, config.routing.implementation)
        self.trainer = Trainer(
            model,
            make_adam(model, config),
            compose=partial(batches.compose_batch, self.digits, image_size=config.task.image_size),
            compute_losses=make_losses(config),
            learning_rate=make_schedule(config, self.num_steps),
            dtype=dtype,
            distributed=distributed,
            cuda_graph=config.train.cuda_graph == "auto",
            warn=lambda message: print(f"{config.name}: {message}", file=sys.stderr),
        )
        self.saved = SavedState(states_folder(), config.name, inputs, every=config.train.save_every)
        self.saved.load(self.trainer)
        self.resumed_after = self.trainer.progress.step
        if not distributed.first:  # other random numbers for other images: of dropout
            key = config.seed, distributed.rank, self.resumed_after
            torch.manual_seed(batches.seeded_generator(*key).initial_seed())

    def records(self) -> Iterator[LogRecord]:
        """Train to the end, or to the error to stop at, and yield the new log records. Progress is
        a bar on a terminal and a line every 30 seconds in a log.
        """
        config, task = self.config, self.config.task
        shown, terminal = self.distributed.first, sys.stderr.isatty()
        bar = {"total": self.num_steps, "initial": self.resumed_after, "leave": False}
        bar |= {"unit": " images", "unit_scale": task.batch_size}
        steps = range(self.resumed_after, self.num_steps)
        draws = batches.training_draws(
            self.digits,
            tqdm(steps, config.name, disable=not (shown and terminal), **bar),
            seed=config.seed,
            batch_size=task.batch_size,
            num_digits=task.num_digits,
            max_shift=task.training_shift,
            augment=config.data.augment,
            balance=config.data.balance,
        )
        records = self.trainer.fit(
            draws,
            num_steps=self.num_steps,
            num_intervals=min(self.num_steps, config.optimizer.intervals),
            validation_batches=partial(self._interval_examples, self.validation),
            train_eval_batches=partial(self._interval_examples, self.digits),
            after_step=self.saved.save_if_due,
        )
        progress = partial(self._progress, perf_counter())
        with repeated(progress) if shown and not terminal else nullcontext():
            yield from until(records, config.stop_at_error)

    def save(self, path: Path) -> None:
        """Write the checkpoint."""
        trainer = self.trainer
        few = min(SCORED, 10 * len(self.validation))  # pairs of the same digits differ
        examples = self.examples(self.validation, few)
        save(
            trainer.model,
            path,
            network=self.config.network,
            arguments=self.arguments,
            num_digits=self.config.task.num_digits,
            data=self.digits.about.differing(),
            validation_error=trainer.history[-1].validation_error,
            rejection_threshold=rejection_threshold(trainer.model, examples, trainer.dtype),
        )

    def examples(self, digits: Digits, num_examples: int) -> Iterator[Batch]:
        """Fixed examples of the digits, made as the test is; none without digits."""
        if len(digits) == 0:
            return iter(())
        settings = protocol(self.config)
        return batches.evaluation_batches(digits, num_examples=num_examples, **settings)

    def _interval_examples(self, digits: Digits, last: bool) -> Iterator[Batch]:
        """Use as many examples as there are validation digits for the last record and for early
        stopping, else `CHECKED`.
        """
        most = len(self.validation) or min(CHECKED, len(self.digits))
        whole = last or self.config.stop_at_error is not None
        return self.examples(digits, most if whole else min(CHECKED, most))

    def _progress(self, begun: float) -> str:
        steps = (self.trainer.progress.step, self.num_steps, self.resumed_after)
        now, total, first = (self.config.task.batch_size * step for step in steps)
        return progress_line(self.config.name, now, total, perf_counter() - begun, first=first)


def warn_of_imbalance(config: RunConfig, digits: Digits) -> None:
    found = imbalance(digits.labels.cpu(), len(digits.classes))
    if found and not config.data.balance:
        counts = [f"{int((digits.labels == n).sum())} of {digits.classes[n]}" for n in found]
        print(
            f"{config.name}: the classes have {' to '.join(counts)} training images: "
            "data.balance=true draws every class equally often",
            file=sys.stderr,
        )


def until(records: Iterable[LogRecord], stop_at_error: float | None) -> Iterator[LogRecord]:
    """Log records up to the first that reaches this validation error; None: all of them."""
    for record in records:
        yield record
        if stop_at_error is not None and record.validation_error <= stop_at_error:
            return


def make_losses(config: RunConfig) -> ComputeLosses:
    """Classification and weighted reconstruction loss."""
    margins = config.loss.model_dump()
    weight, num_digits = margins.pop("reconstruction_weight"), config.task.num_digits
    loss = classification_loss(config.network, num_digits=num_digits, **margins)

    def compute(prediction, reconstructions, batch: Batch):
        tensors = prediction.lengths, batch.targets, reconstructions, batch.sources
        return weighted_losses(*tensors, classification=loss, reconstruction_weight=weight)

    return compute


def make_adam(model: torch.nn.Module, config: RunConfig) -> torch.optim.Adam:
    """Adam; on CUDA its learning rate is a tensor, which a captured step reads."""
    settings = {"betas": (config.optimizer.beta1, config.optimizer.beta2)}
    settings |= {"eps": config.optimizer.epsilon, "fused": True}
    device = next(model.parameters()).device
    if device.type == "cuda":
        settings |= {"lr": torch.tensor(0.0, device=device), "capturable": True}
    return torch.optim.Adam(model.parameters(), **settings)


def make_schedule(config: RunConfig, num_steps: int) -> Callable[[int], float]:
    """Step, counted from 0 -> learning rate."""
    rate = config.learning_rate.model_dump()
    if rate.pop("schedule") == "one_cycle":
        return partial(one_cycle, num_steps=num_steps, **rate)
    return partial(exponential, **rate)


def protocol(config: RunConfig) -> dict[str, int]:
    """How test and validation examples are made: arguments of `evaluation_batches`."""
    task = {"num_digits": config.task.num_digits, "image_size": config.task.image_size}
    sizes = {"seed": config.evaluate.seed, "batch_size": config.evaluate.batch_size}
    return sizes | task | {"max_shift": config.task.test_shift}


def make_evaluator(config: RunConfig, model: Path, digits: Path, device: torch.device) -> Evaluator:
    """The evaluator of the checkpoint `model` on the test split of the folder `digits`."""
    precision = config.optimizer.precision
    evaluator = load_evaluator(model, digits, device, precision=precision, **protocol(config))
    keep_freed_memory()
    limit_threads(evaluator.model)
    route_with(evaluator.model, config.routing.implementation)
    return evaluator
