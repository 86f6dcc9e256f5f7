"""The tables of the report, in Markdown, and what the paper has beside them."""

from capsnet.config import Params, resolve
from capsnet.nn.registry import NETWORKS
from capsnet.studies.results import Results

# Table 1 of the paper: test error in percent by (network, routing iterations, with reconstruction,
# task).
PAPER = {
    ("baseline", None, None, "mnist"): "0.39",
    ("baseline", None, None, "multimnist"): "8.1",
    ("capsnet", 1, False, "mnist"): "0.34 ± 0.032",
    ("capsnet", 1, True, "mnist"): "0.29 ± 0.011",
    ("capsnet", 1, True, "multimnist"): "7.5",
    ("capsnet", 3, False, "mnist"): "0.35 ± 0.036",
    ("capsnet", 3, True, "mnist"): "0.25 ± 0.005",
    ("capsnet", 3, True, "multimnist"): "5.2",
}


def place_in_paper(params: Params, name: str) -> tuple:
    """Where this run would stand in PAPER. Its reconstruction is that of `loss` in params.yaml."""
    config = resolve(params, name)
    if not NETWORKS[config.network].routes:
        return config.network, None, None, config.task.name
    weight, default = config.loss.reconstruction_weight, params.loss.reconstruction_weight
    reconstruction = weight > 0 if weight in (0, default) else None
    return config.network, config.routing.iterations, reconstruction, config.task.name


def published(params: Params, name: str) -> str | None:
    """What the paper's Table 1 has for this run; None if it has nothing to compare."""
    return PAPER.get(place_in_paper(params, name)) if params.source == "mnist" else None


def routing_of(params: Params, name: str) -> str:
    """How a run routes: "r = 3", or "-" for a network that does not."""
    config = resolve(params, name)
    return f"r = {config.routing.iterations}" if NETWORKS[config.network].routes else "-"


def results_table(params: Params, measured: dict[str, Results]) -> str:
    rows = []
    for name in params.runs:
        found, config = measured[name].headline, resolve(params, name)
        reconstruction = "yes" if config.loss.reconstruction_weight > 0 else "no"
        rows.append(
            {
                "run": name,
                "network": config.network,
                "task": config.task.name,
                "routing": routing_of(params, name),
                "reconstruction": reconstruction if NETWORKS[config.network].reconstructs else "-",
                "test error %": f"**{found['error']:.2f}**",
                "95 % interval": f"{found['error_low']:.2f} to {found['error_high']:.2f}",
                "examples": f"{measured[name].tables['errors']['examples'].iloc[0]:,}",
                "paper %": published(params, name) or "-",
            }
        )
    return markdown(rows)


def training_table(params: Params, measured: dict[str, Results]) -> str:
    rows = []
    for name in params.runs:
        headline, last = measured[name].headline, measured[name].tables["training"].iloc[-1]
        validation = headline["validation_error"]
        rows.append(
            {
                "run": name,
                "parameters": f"{last['num_parameters']:,.0f}",
                "GMAC": f"{last['multiply_adds'] / 1e9:.2f}",
                "images shown": f"{last['examples']:,.0f}",
                "images/s": f"{headline['images_per_second']:.0f}",
                "minutes": f"{headline['minutes']:.1f}",
                "peak host memory MiB": f"{last['peak_memory_mib']:.0f}",
                "final loss": f"{headline['loss']:.4f}",
                "validation error %": "-" if validation is None else f"{validation:.2f}",
                "training error %": "-" if validation is None else f"{last['training_error']:.2f}",
            }
        )
    return markdown(rows)


def markdown(rows: list[dict[str, str]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
