"""What the decoder draws, in sentences."""

import pandas as pd

from capsnet.config import RunConfig
from capsnet.studies.results import Results, Section


def reconstructions(results: Results, config: RunConfig) -> str:
    table = results.tables["separation"]
    error = squared_error(table)
    if config.task.num_digits == 1:
        failures = " Failures follow, from the capsules of the label and of the prediction."
        return (
            "Each digit is reconstructed from its own class capsule, as in Figure 3 of the paper."
            f"{failures if results.headline['test_error'] > 0 else ''} {error}"
        )
    accuracy = table[(table["measure"] == "separation_accuracy") & (table["name"] == "all")].iloc[0]
    blurred = table.loc[table["measure"] == "class_means_accuracy", "value"].item()
    return (
        "Both digits are reconstructed, each from its own class capsule, as in Figure 5 of the "
        "paper. A shared pixel may belong to both. "
        f"Separation accuracy: {accuracy['value']:.1f} % ({accuracy['low']:.1f} to "
        f"{accuracy['high']:.1f}) of the pixels covered by exactly one digit (half white or more) "
        "are brighter in that digit's reconstruction. Chance is 50 %. The mean picture of each "
        f"class reaches {blurred:.1f} %. {error}"
    )


def squared_error(table: pd.DataFrame) -> str:
    """The reconstruction error and those of trivial answers, and which of them are closer."""
    squared = table[table["measure"] == "squared_error"].set_index("name")
    own, trivial = squared.loc["network", "value"], squared["value"].drop("network")
    closer = " and ".join(trivial.index[trivial < own])
    return (
        f"Squared error of a digit's reconstruction from the capsule of its label: {own:.1f}, "
        f"summed over pixels, mean over {squared.loc['network', 'examples']:,} test examples. "
        f"Without a network: {', '.join(f'{name} {value:.1f}' for name, value in trivial.items())}."
        + (f" Closer to the digit than its reconstruction: {closer}." if closer else "")
    )


SECTION = Section("What the capsules reconstruct", (reconstructions,))
