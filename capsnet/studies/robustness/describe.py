"""Errors under affine transformations in sentences."""

import pandas as pd

from capsnet.config import RunConfig
from capsnet.studies.results import Results, Section


def robustness(results: Results, config: RunConfig) -> str:
    table = results.tables["robustness"]
    combined = table[table["amount"].isna()].set_index("transform")
    name = next(name for name in combined.index if name.startswith("affnist_like"))
    together = combined.loc[name]
    sentence = (
        f"Of {together['examples']:,} test digits {mean_error(table, 'rotation', -20, 20):.1f} % "
        f"are wrong rotated by 20 degrees, {mean_error(table, 'shear', -0.2, 0.2):.1f} % sheared "
        f"by 0.2, {mean_error(table, 'scale', 0.8):.1f} % at 0.8 and "
        f"{mean_error(table, 'scale', 1.2):.1f} % at 1.2 of their size; affNIST's transforms "
        f"together give {together['error']:.1f} % "
        f"({together['error_low']:.1f} to {together['error_high']:.1f})"
    )
    sentence += ", moved by at most 2 px." if name.endswith("2px") else " on its canvas."
    if "affnist" in combined.index:
        sentence += f" On the published affNIST: {combined.loc['affnist', 'error']:.1f} %"
        sentence += " (the paper: 21 %, trained until 99.23 % on plain digits)."
    return sentence


def affine(results: Results, config: RunConfig) -> str:
    table, settings = results.tables["robustness"], config.evaluate
    found = table[table["transform"] == "random_affine"].iloc[0]
    degrees, share = settings.affine_degrees, settings.affine_translate
    return (
        f"Under RandomAffine(degrees={degrees:g}, translate=({share:g}, {share:g})), the test of "
        f"the teaching notebook, the error is {found['error']:.2f} % "
        f"({found['error_low']:.2f} to {found['error_high']:.2f}); without, "
        f"{results.headline['error']:.2f} %."
    )


def mean_error(table: pd.DataFrame, transform: str, *amounts: float) -> float:
    """Mean error at these amounts: the ends of affNIST's ranges."""
    chosen = (table["transform"] == transform) & table["amount"].isin(amounts)
    return table.loc[chosen, "error"].mean()


SECTION = Section("Under affine transformations", {"figures/affine.png": affine})
