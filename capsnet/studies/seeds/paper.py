"""Table 1 of the paper."""

from capsnet.config import RunConfig
from capsnet.nn.registry import NETWORKS

PAPER_WEIGHT = 0.0005  # of the reconstruction loss (section 4.1)
NAN = float("nan")
# Network, routing iterations, with reconstruction, task -> test error in percent and its standard
# deviation over three trainings.
PAPER = {
    ("baseline", None, None, "mnist"): (0.39, NAN),
    ("baseline", None, None, "multimnist"): (8.1, NAN),
    ("capsnet", 1, False, "mnist"): (0.34, 0.032),
    ("capsnet", 1, True, "mnist"): (0.29, 0.011),
    ("capsnet", 1, True, "multimnist"): (7.5, NAN),
    ("capsnet", 3, False, "mnist"): (0.35, 0.036),
    ("capsnet", 3, True, "mnist"): (0.25, 0.005),
    ("capsnet", 3, True, "multimnist"): (5.2, NAN),
}


def place_in_paper(config: RunConfig) -> tuple:
    """The key of PAPER that this run has, or would have."""
    if not NETWORKS[config.network].routes:
        return config.network, None, None, config.task.name
    reconstruction = {0: False, PAPER_WEIGHT: True}.get(config.loss.reconstruction_weight)
    return config.network, config.routing.iterations, reconstruction, config.task.name


def published(config: RunConfig) -> tuple[float, float]:
    """Error and standard deviation in the paper; NaN where it has nothing comparable."""
    return PAPER.get(place_in_paper(config) if config.source == "mnist" else None, (NAN, NAN))
