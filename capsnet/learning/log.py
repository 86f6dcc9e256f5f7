"""The log of a training: records of intervals, their summary, and lines of progress."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from threading import Event, Thread
from typing import NamedTuple

from tqdm import tqdm

HEADER = (
    "  examples      loss  classification  reconstruction  validation  training  learning rate  "
    "images/s    time\n"
    "                                        squared px     error %   error %                  "
    "              s"
)


class LogRecord(NamedTuple):
    """One interval of a training; losses are means over its images."""

    step: int  # steps done
    examples: int  # images shown
    loss: float
    classification_loss: float
    reconstruction_loss: float  # sum of squared pixel differences, before its weight
    validation_error: float  # percent; NaN without validation digits
    training_error: float  # percent, on training digits shown as the validation digits are
    learning_rate: float
    images_per_second: float  # training alone, without evaluation
    seconds: float  # since the start, all included

    def metrics(self) -> dict[str, float]:
        """The curves: all but the two that count the steps and the time."""
        return dict(zip(self._fields[2:-1], self[2:-1], strict=True))

    def line(self) -> str:
        """The record under `HEADER`."""
        return (
            f"{self.examples:10,}  {self.loss:8.4f}  {self.classification_loss:14.4f}  "
            f"{self.reconstruction_loss:14.2f}  {self.validation_error:10.2f}  "
            f"{self.training_error:8.2f}  {self.learning_rate:13.6f}  "
            f"{self.images_per_second:8.0f}  {self.seconds:6.0f}"
        )


def summary(history: Sequence[LogRecord]) -> dict[str, float]:
    """The last record and the median speed, which a slow interval does not change."""
    last = history[-1]
    return {
        "loss": last.loss,
        "validation_error": last.validation_error,
        "images_per_second": median(record.images_per_second for record in history),
        "minutes": last.seconds / 60,
    }


def progress_line(name: str, examples: int, total: int, seconds: float, *, first: int) -> str:
    """Percent, speed and time left after the images from `first` to `examples` took `seconds`."""
    form = "{desc}: {percentage:.0f} % of {total:,} images, {rate_noinv_fmt}, {remaining} left"
    return tqdm.format_meter(
        examples, total, seconds, prefix=name, initial=first, unit=" images", bar_format=form
    )


@contextmanager
def repeated(line: Callable[[], str], every: float = 30.0) -> Iterator[None]:
    """Print `line()` again and again while the block runs, `every` seconds apart."""
    ended = Event()

    def print_lines() -> None:
        while not ended.wait(every):
            print(line(), flush=True)

    thread = Thread(target=print_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
