"""The training loop. It yields log records, writes no file and knows no MLflow."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from capsnet.data.batches import Batch
from capsnet.learning.evaluation import predict
from capsnet.learning.log import LogRecord
from capsnet.learning.step import TrainingStep, check_finite, set_learning_rate
from capsnet.metrics import exact_match

UNREAD_STEPS = 1000  # at most, before the losses are read from a device
WARM_UP_STEPS = 10  # eager steps before a capture: kernels compile, buffers appear
Examples = Callable[[bool], Iterable[Batch]]  # the argument: whether this is the last interval


@dataclass
class Progress:
    """The position of a training between two steps."""

    step: int = 0  # steps done
    examples: int = 0  # images shown
    seconds: float = 0.0  # since the start, all included
    interval_examples: int = 0  # images of the unfinished interval
    interval_seconds: float = 0.0  # its seconds of training, without evaluation


class Trainer:
    """Train a network: `fit` yields a log record at the end of each interval.

    learning_rate: step, counted from 0 -> rate. cuda_graph: replay the step as a CUDA graph; `warn`
    gets one line if the capture fails. step: arguments of `TrainingStep`. With several processes
    each takes a shard of every batch, and all yield the same records.

    `progress` and `history`, the log records so far, belong to the state of a training.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        learning_rate: Callable[[int], float],
        cuda_graph: bool = False,
        warn: Callable[[str], None] = print,
        **step: object,
    ) -> None:
        self.model, self.optimizer, self.learning_rate = model, optimizer, learning_rate
        self.progress, self.history = Progress(), []
        self.train_step = TrainingStep(model, optimizer, **step)
        self.dtype, self.distributed = self.train_step.dtype, self.train_step.distributed
        self.loss_sums = self.train_step.loss_sums
        if cuda_graph:
            self.train_step.capture_after(WARM_UP_STEPS, warn)

    def fit(
        self,
        draws: Iterable[Tensor],
        *,
        num_steps: int,
        num_intervals: int,
        validation_batches: Examples,
        train_eval_batches: Examples,
        after_step: Callable[["Trainer"], None] = lambda trainer: None,
    ) -> Iterator[LogRecord]:
        """Train on the draws, those from `progress.step` on, and yield the new log records.

        `num_steps` and `num_intervals` count from the very start. Both errors are measured at the
        end of an interval. `after_step` is called after each step and its record, for saving.
        Raises ValueError if a loss is not finite: on a CPU before the weights change, on other
        devices within `UNREAD_STEPS`, since the loop does not wait for a device.
        """
        now = self.progress
        ends = {round(num_steps * (n + 1) / num_intervals) for n in range(num_intervals)}
        start = perf_counter() - now.seconds
        self.model.train()
        lap = perf_counter()
        for drawn in draws:
            set_learning_rate(self.optimizer, self.learning_rate(now.step))
            self.train_step(self.distributed.shard(drawn), now.step + 1)
            now.step += 1
            now.examples += len(drawn)
            now.interval_examples += len(drawn)
            ended, last = now.step in ends, now.step == num_steps
            if ended or now.step % UNREAD_STEPS == 0:
                means = check_finite(self.loss_sums / now.interval_examples, f"by step {now.step}")
            now.interval_seconds += perf_counter() - lap
            if ended:
                self.distributed.broadcast_buffers(self.model)
                errors = self.error(validation_batches(last)), self.error(train_eval_batches(last))
                self.history.append(self._record(means, errors, perf_counter() - start))
                yield self.history[-1]
                now.interval_examples, now.interval_seconds = 0, 0.0
                self.loss_sums.zero_()
            now.seconds = perf_counter() - start
            after_step(self)
            lap = perf_counter()

    def _record(
        self, losses: list[float], errors: tuple[float, float], seconds: float
    ) -> LogRecord:
        now = self.progress
        rate, speed = self.learning_rate(now.step - 1), now.interval_examples / now.interval_seconds
        return LogRecord(now.step, now.examples, *losses, *errors, rate, speed, seconds)

    @torch.inference_mode()
    def error(self, batches: Iterable[Batch]) -> float:
        """Exact-match error in percent over the batches; NaN for none. Each of several processes
        evaluates some of them; all get the error of all.
        """
        self.model.eval()
        counts = torch.zeros(2, dtype=torch.int64, device=self.loss_sums.device)
        for batch in islice(batches, self.distributed.rank, None, self.distributed.size):
            lengths = predict(self.model, batch.images, self.dtype).lengths
            counts[0] += exact_match(lengths, batch.labels).sum()
            counts[1] += len(batch)
        self.model.train()
        right, total = self.distributed.sum(counts).tolist()
        return 100 * (1 - right / total) if total else float("nan")

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state: weights, optimizer, losses so far and random numbers."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for n, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{n}.{name}": value for name, value in state.items()}
        found |= {"loss_sums": self.loss_sums, "random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            found["random.cuda"] = torch.cuda.get_rng_state()
        return found

    def restore(
        self, tensors: Mapping[str, Tensor], progress: Progress, history: Iterable[LogRecord]
    ) -> None:
        """Continue from a state: what `tensors`, `progress` and `history` were then."""
        self.progress.__dict__.update(vars(progress))
        self.history[:] = history
        self.loss_sums.copy_(tensors["loss_sums"])
        self.model.load_state_dict(
            {name: tensors[f"model.{name}"] for name in self.model.state_dict()}
        )
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [*self.model.parameters()]
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, n, name = key.split(".")
                like = parameters[int(n)]  # the moments in the memory format of their parameter
                moment = value.shape == like.shape and name != "step"
                value = torch.empty_like(like).copy_(value) if moment else value
                state.setdefault(int(n), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
