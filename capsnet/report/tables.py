"""The tables of the report, in Markdown, and what the paper has beside them."""

from statistics import mean, stdev

from capsnet.params import Params, params_of

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


def published(params: Params, name: str) -> str | None:
    """What the paper's Table 1 has for this run; None if it has nothing to compare."""
    settings, own = params.runs[name], params_of(params, name)
    if params.chosen_budget.source != "mnist":
        return None
    if settings.network == "baseline":
        return PAPER.get(("baseline", None, None, settings.task))
    reconstruction = own.loss.reconstruction_weight > 0
    key = ("capsnet", own.routing.iterations, reconstruction, settings.task)
    return PAPER.get(key) if own.routing.coupling == "agreement" else None


def routing_of(params: Params, name: str) -> str:
    """How a run routes, in words; "-" for a network that does not."""
    routing = params_of(params, name).routing
    if params.runs[name].network != "capsnet":
        return "-"
    if routing.coupling == "agreement":
        return f"agreement, r = {routing.iterations}"
    return routing.coupling


def results_table(params: Params, metrics: dict[str, dict]) -> str:
    rows = []
    for name, settings in params.runs.items():
        measured, own = metrics[name], params_of(params, name)
        reconstruction = "yes" if own.loss.reconstruction_weight > 0 else "no"
        rows.append(
            {
                "run": name,
                "network": settings.network,
                "task": settings.task,
                "routing": routing_of(params, name),
                "reconstruction": reconstruction if settings.network == "capsnet" else "-",
                "test error %": f"**{measured['error']:.2f}**",
                "95 % interval": f"{measured['error_low']:.2f} to {measured['error_high']:.2f}",
                "examples": f"{measured['examples']:,}",
                "paper %": published(params, name) or "-",
            }
        )
    return markdown(rows)


def seeds_table(params: Params, metrics: dict[str, dict]) -> str:
    """Mean and standard deviation over runs that differ in nothing but their seed; "" for none."""
    groups: dict[tuple, list[str]] = {}
    for name, settings in params.runs.items():
        alike = {key: value for key, value in vars(settings).items() if key != "seed"}
        groups.setdefault(tuple(alike.items()), []).append(name)
    rows = []
    for names in groups.values():
        errors = [metrics[name]["error"] for name in names]
        seeds = {params_of(params, name).seed for name in names}
        if len(seeds) > 1:
            rows.append(
                {
                    "runs": ", ".join(names),
                    "test error %": f"**{mean(errors):.2f} ± {stdev(errors):.3f}**",
                    "seeds": str(len(seeds)),
                    "paper %": published(params, names[0]) or "-",
                }
            )
    if not rows:
        return ""
    return f"Mean and standard deviation over seeds:\n\n{markdown(rows)}"


def training_table(params: Params, metrics: dict[str, dict]) -> str:
    rows = []
    for name in params.runs:
        training = metrics[name]["training"]
        validation = training["validation_error"]
        rows.append(
            {
                "run": name,
                "parameters": f"{training['num_parameters']:,}",
                "images shown": f"{training['examples']:,}",
                "images/s": f"{training['images_per_second']:.0f}",
                "minutes": f"{training['seconds'] / 60:.1f}",
                "peak host memory MiB": f"{training['peak_memory_mib']:.0f}",
                "final loss": f"{training['loss']:.4f}",
                "validation error %": "-" if validation is None else f"{validation:.2f}",
            }
        )
    return markdown(rows)


def markdown(rows: list[dict[str, str]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
