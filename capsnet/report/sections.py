"""What was measured of a run, by question: figures under the sentences that say what they show."""

import os
from collections.abc import Iterator
from pathlib import Path

from capsnet.config import RunConfig
from capsnet.report.sentences import FINDINGS
from capsnet.report.tables import Results

SECTIONS = {  # heading -> files within a run's folder
    "What the capsules reconstruct": ["figures/reconstructions.png"],
    "What each dimension of a capsule means": [
        "perturbation/overview.png",
        "perturbation/effects.png",
        "perturbation/usual_overview.png",
    ],
    "What routing does": ["figures/routing.png", "figures/couplings.png"],
    "Where the errors are": ["figures/overlap.png", "figures/pairs.png", "figures/confusion.png"],
    "Are lengths probabilities?": ["figures/calibration.png"],
    "Training": ["figures/training.png"],
}
TABLES = (
    "training",
    "errors",
    "confusion",
    "routing",
    "robustness",
    "calibration",
    "counts",
    "separation",
    "examples",
    "perturbation",
    "usual",
)


def report_of(results: Results, config: RunConfig, folder: Path, here: Path) -> Iterator[str]:
    """The parts of a report of one run whose tables and figures are in `folder`."""
    found, examples = results.headline, results.tables["training"]["examples"].iloc[-1]
    yield f"# {results.name}: {config.network} on {config.task.name}, {examples:,} images shown"
    yield (
        f"Test error {found['error']:.2f} % ({found['error_low']:.2f} to "
        f"{found['error_high']:.2f}, 95 %, Wilson's of this one network). Every sentence below is "
        "made from the tables of this run, which stand beside its figures."
    )
    for heading, files in SECTIONS.items():
        drawn = [folder / file for file in files if (folder / file).exists()]
        if drawn:
            yield f"## {heading}"
        for path in drawn:
            yield shown(path, results, config, here)
        if heading.startswith("What each"):
            yield perturbation_grids(folder, results.name, here)


def shown(path: Path, results: Results, config: RunConfig, here: Path) -> str:
    """A picture under the sentence of what it shows."""
    sentence, name = FINDINGS[path.name](results, config), results.name
    return f"**{name}.** {sentence}\n\n![{name}: {path.stem}]({relative(path, here)})"


def perturbation_grids(folder: Path, name: str, here: Path) -> str:
    """Figure 4 of every digit, folded away: ten large grids."""
    grids = sorted((folder / "perturbation").glob("digit_*.png"))
    if not grids:
        return ""
    pictures = [f"![{grid.stem.replace('_', ' ')}]({relative(grid, here)})" for grid in grids]
    head = f"<details><summary>{name}: every dimension of every digit (Figure 4)</summary>"
    return "\n\n".join([head, *pictures, "</details>"])


def relative(path: Path, here: Path) -> str:
    return Path(os.path.relpath(path, here)).as_posix()
