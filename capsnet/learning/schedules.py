"""Learning-rate schedules: step, counted from 0 -> learning rate."""

from math import cos, pi


def one_cycle(step: int, *, num_steps: int, peak: float, warmup: float, floor: float) -> float:
    """Linear up to `peak` over the share `warmup` of the steps, then half a cosine to `floor`."""
    rising = warmup * num_steps
    if step < rising:
        return max(floor, peak * (step + 1) / (rising + 1))
    progress = (step - rising) / max(1, num_steps - 1 - rising)
    return floor + (peak - floor) * (1 + cos(pi * min(1.0, progress))) / 2


def exponential(step: int, *, peak: float, factor: float, every: float, floor: float) -> float:
    """`peak` times `factor` every so many steps, never below `floor` (authors' code)."""
    return max(floor, peak * factor ** (step / every))
