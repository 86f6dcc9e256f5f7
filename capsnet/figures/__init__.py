"""Every picture of the reports: arrays and tables in, one PNG file out (the only folder that knows
matplotlib).

`canvas` holds the one style that all share, `pictures` the figures made of small pictures, `charts`
those with axes, `effects` what the dimensions of a capsule do.
"""

from capsnet.figures.charts import (
    confusion,
    error_by_overlap,
    growth,
    pair_errors,
    training_curve,
)
from capsnet.figures.effects import (
    perturbation_grid,
    perturbation_overview,
)
from capsnet.figures.pictures import (
    notice,
    overlaid_reconstructions,
    reconstructions,
    transformed,
)

__all__ = [
    "confusion",
    "error_by_overlap",
    "growth",
    "notice",
    "overlaid_reconstructions",
    "pair_errors",
    "perturbation_grid",
    "perturbation_overview",
    "reconstructions",
    "training_curve",
    "transformed",
]
