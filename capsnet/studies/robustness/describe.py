"""Errors under affine transformations, in sentences."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from capsnet.config import RunConfig
from capsnet.plots.pictures import notice
from capsnet.studies.results import Results, Section, picture
from capsnet.studies.robustness.draw import robustness_curves


def overview(
    configs: dict[str, RunConfig], measured: dict[str, Results], drawn: Path, here: Path
) -> Iterator[str]:
    """One figure for all runs with one digit to an image, or a notice in its place."""
    path, title = drawn / "robustness.png", "Error under affine transformations"
    names = [name for name, config in configs.items() if config.task.num_digits == 1]
    if not names:
        notice(path, title="No run has one digit to an image", note="Nothing to transform.")
        return
    tables = {configs[name].title: measured[name].tables["robustness"] for name in names}
    shifts = sorted({configs[name].task.training_shift for name in names})
    seen = f"training has shifts of up to {' or '.join(map(str, shifts))} px only"
    robustness_curves(tables, path, title=f"{title}; {seen}")
    yield picture(title, path, here)


def robustness(table: pd.DataFrame, config: RunConfig) -> str:
    combined = table[table["amount"].isna()].set_index("transform")
    small = "affnist_like" not in combined.index  # no room for affNIST's translations
    together = combined.loc["affnist_like_2px" if small else "affnist_like"]
    sentence = (
        f"Error on {together['examples']:,} test digits: "
        f"{mean_error(table, 'rotation', -20, 20):.1f} % rotated by 20 degrees, "
        f"{mean_error(table, 'shear', -0.2, 0.2):.1f} % sheared by 0.2, "
        f"{mean_error(table, 'scale', 0.8):.1f} % scaled to 0.8 and "
        f"{mean_error(table, 'scale', 1.2):.1f} % scaled to 1.2. Under all of affNIST's "
        f"transforms{', shifted by at most 2 px' if small else ''}: {together['error']:.1f} % "
        f"({together['error_low']:.1f} to {together['error_high']:.1f})."
    )
    if "affnist" in combined.index:
        sentence += f" On the published affNIST: {combined.loc['affnist', 'error']:.1f} %."
        if config.source == "mnist":
            sentence += " The paper has 21 %, at an accuracy of 99.23 % on plain digits."
    return sentence


def affine(results: Results, config: RunConfig) -> str:
    table, settings = results.tables["robustness"], config.evaluate
    found = table[table["transform"] == "random_affine"].iloc[0]
    degrees, share = settings.affine_degrees, settings.affine_translate
    return (
        f"Under RandomAffine(degrees={degrees:g}, translate=({share:g}, {share:g})), as in the "
        f"teaching notebook, the error is {found['error']:.2f} % "
        f"({found['error_low']:.2f} to {found['error_high']:.2f}). Without it: "
        f"{results.headline['test_error']:.2f} %. {robustness(table, config)}"
    )


def mean_error(table: pd.DataFrame, transform: str, *amounts: float) -> float:
    """Mean error at these amounts: the ends of affNIST's ranges."""
    chosen = (table["transform"] == transform) & table["amount"].isin(amounts)
    return table.loc[chosen, "error"].mean()


SECTION = Section("Under affine transformations", (affine,), overview=overview)
