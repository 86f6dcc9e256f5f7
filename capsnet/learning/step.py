"""One training step, eager or captured as a CUDA graph."""

from collections.abc import Callable
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from capsnet.data.batches import Batch
from capsnet.learning.device import autocast
from capsnet.learning.distributed import SINGLE_PROCESS, Distributed
from capsnet.losses import Losses
from capsnet.nn.capsnet import Prediction

ComputeLosses = Callable[[Prediction, Tensor | None, Batch], Losses]


class PredictAndDecode(nn.Module):
    """Prediction and reconstruction in one forward pass, as DistributedDataParallel needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Prediction, Tensor | None]:
        """Each true digit is decoded from its own capsule."""
        prediction, decoder = self.model(images), self.model.decoder
        return prediction, decoder(prediction.capsules, labels) if decoder else None


class TrainingStep:
    """One step: compose the batch, forward, backward, update.

    compose: draws -> batch. compute_losses: prediction, reconstructions, batch -> losses; the
    decoder sees the capsules of the true labels. dtype: bfloat16 means autocast.

    The losses, times the number of images, are added to `loss_sums`, float64 [3] on the device.

    After `capture_after` the step is captured as a CUDA graph and replayed: the host launches one
    graph instead of about 300 kernels. What changes from step to step stays in place: the draws
    [b, k, 3], `loss_sums` and the learning rate, a tensor. All draws then have one shape.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        compose: Callable[[Tensor], Batch],
        compute_losses: ComputeLosses,
        dtype: torch.dtype = torch.float32,
        distributed: Distributed = SINGLE_PROCESS,
    ) -> None:
        self.network = PredictAndDecode(model)
        if distributed.size > 1:  # gradients are means over all processes
            self.network = DistributedDataParallel(self.network)
        self.optimizer, self.compose, self.compute_losses = optimizer, compose, compute_losses
        self.dtype, self.distributed = dtype, distributed
        self.device = next(model.parameters()).device
        self.loss_sums = torch.zeros(len(Losses._fields), dtype=torch.float64, device=self.device)
        self.drawn: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.steps_to_capture = -1  # no capture

    def capture_after(self, num_steps: int, warn: Callable[[str], None]) -> None:
        """Capture the step after `num_steps` eager ones, on CUDA with one process; elsewhere do
        nothing. If the capture fails, `warn` gets one line and training continues eagerly.
        """
        if self.device.type == "cuda" and self.distributed.size == 1:
            self.steps_to_capture, self.warn = num_steps, warn
            self.warm_up = torch.cuda.Stream(self.device)

    def __call__(self, drawn: Tensor, number: int) -> None:
        """Run step `number`, counted from 1, on the draws int64 [b, k, 3]."""
        self.number = number
        # Not blocking, or every step would wait until the device has done the one before it.
        drawn = drawn.pin_memory() if self.device.type == "cuda" else drawn
        if self.graph is None and self.steps_to_capture < 0:
            self.drawn = drawn.to(self.device, non_blocking=True)
            self._run()
            return
        if self.drawn is None:
            self.drawn = torch.empty_like(drawn, device=self.device)
        self.drawn.copy_(drawn, non_blocking=True)
        if self.graph is not None:
            self.graph.replay()
        elif self.steps_to_capture > 0:
            self.steps_to_capture -= 1
            current = torch.cuda.current_stream()  # warm-up needs another (PyTorch, "CUDA graphs")
            self.warm_up.wait_stream(current)
            with torch.cuda.stream(self.warm_up):
                self._run()
            current.wait_stream(self.warm_up)
        else:
            self._capture()

    def _run(self) -> None:
        batch = self.compose(self.drawn)
        losses = forward_losses(self.network, batch, self.compute_losses, self.dtype)
        values = torch.stack(losses).detach()
        if self.distributed.size > 1:
            values = self.distributed.sum(values) / self.distributed.size
        if self.device.type == "cpu":  # on other devices reading a value waits for the device
            check_finite(values, f"at step {self.number}")
        self.loss_sums += values.double() * (len(batch) * self.distributed.size)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.optimizer.step()

    def _capture(self) -> None:
        """Capture the step, which runs nothing, then replay it. If that fails, run it eagerly."""
        current, graph, failure = torch.cuda.current_stream(), torch.cuda.CUDAGraph(), None
        try:
            with torch.cuda.graph(graph):
                self._run()
        except (RuntimeError, ValueError) as error:  # ValueError: of a routing kernel
            failure = first_cause(error)
        if failure is None:
            self.graph = graph
            graph.replay()
            return
        del graph  # and with it the memory of the step
        torch.cuda.set_stream(current)  # a capture that fails at its end does not leave its own
        torch.cuda.empty_cache()
        self.warn(f"the step is not captured as a CUDA graph: {failure}")
        self.steps_to_capture = -1
        self._run()


def forward_losses(
    network: nn.Module, batch: Batch, compute_losses: ComputeLosses, dtype: torch.dtype
) -> Losses:
    """One forward pass of a `PredictAndDecode` and its losses; `dtype` bfloat16 means autocast."""
    with autocast(batch.images.device, dtype):
        prediction, reconstructions = network(batch.images, batch.labels)
    return compute_losses(prediction, reconstructions, batch)


def check_finite(losses: Tensor, when: str) -> list[float]:
    """The values of Losses or of their means. Raises ValueError if one is not finite."""
    values = losses.tolist()
    parts = [*zip(Losses._fields, values, strict=True)][1:]  # the total follows its parts
    for name, value in parts:
        if not isfinite(value):
            raise ValueError(
                f"{name} loss is {value} {when}: lower the budget's learning_rate.peak or set "
                f"optimizer.precision=float32"
            )
    return values


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate; in place where it is a tensor, which a captured step reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def first_cause(error: BaseException) -> str:
    """The first error of a chain, in one line: a failed capture raises a second one."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200}"
