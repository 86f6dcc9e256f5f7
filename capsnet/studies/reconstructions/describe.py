"""What the decoder draws, in sentences."""

from capsnet.config import RunConfig
from capsnet.studies.results import Results, Section


def reconstructions(results: Results, config: RunConfig) -> str:
    table = results.tables["separation"]
    squared = table[table["measure"] == "squared_error"].set_index("name")
    trivial = squared["value"].drop("network")
    error = (
        f"Squared error of a digit's reconstruction from the capsule of its label: "
        f"{squared.loc['network', 'value']:.1f}, summed over pixels, mean over "
        f"{squared.loc['network', 'examples']:,} test examples. Without a network: "
        + ", ".join(f"{name} {value:.1f}" for name, value in trivial.items())
    )
    if config.task.num_digits == 1:
        return (
            "Each digit is reconstructed from its own class capsule, as in Figure 3 of the paper. "
            "At the end are failures, from the capsules of the label and of the prediction. "
            f"{error}."
        )
    accuracy = table[(table["measure"] == "separation_accuracy") & (table["name"] == "all")].iloc[0]
    blurred = table.loc[table["measure"] == "class_means_accuracy", "value"].item()
    return (
        "Both digits are reconstructed, each from its own class capsule, as in Figure 5 of the "
        "paper. A shared pixel may belong to both. The capsule of an absent digit (*) should draw "
        f"nothing. Separation accuracy: {accuracy['value']:.1f} % ({accuracy['low']:.1f} to "
        f"{accuracy['high']:.1f}) of the pixels covered by exactly one digit (half white or more) "
        "are brighter in that digit's reconstruction. Chance is 50 %. The mean picture of each "
        f"class reaches {blurred:.1f} %. {error}."
    )


SECTION = Section("What the capsules reconstruct", {"figures/reconstructions.png": reconstructions})
