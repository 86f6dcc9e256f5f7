"""What the decoder draws, in a sentence."""

from capsnet.config import RunConfig
from capsnet.studies.results import Results, Section


def reconstructions(results: Results, config: RunConfig) -> str:
    table = results.tables["separation"]
    squared = table[table["measure"] == "squared_error"].set_index("name")["value"]
    pixels = table[(table["measure"] == "separation_accuracy") & (table["name"] == "all")]
    error, beside = squared["network"], squared.drop("network")
    of = f"{table.loc[table['name'] == 'network', 'examples'].item():,} test examples"
    trivial = ", ".join(f"{name} {value:.1f}" for name, value in beside.items())
    if config.task.num_digits == 1:
        return (
            "Each digit from its own capsule, as in Figure 3 of the paper: smooth versions that "
            f"keep the shape; failures at the end, from the capsules of the label and of the "
            f"prediction. From the label's capsule they are {error:.1f} squared pixels off on "
            f"average of {of}; answers that need no network: {trivial}."
        )
    share = pixels.iloc[0]
    blurred = table.loc[table["measure"] == "class_means_accuracy", "value"].item()
    return (
        "Each of two digits from its own capsule, as in Figure 5 of the paper; a shared pixel may "
        "belong to both, and a capsule whose digit is not there (*) should draw nothing. On pixels "
        "that one digit alone has inked (half white or more) its own reconstruction is the "
        f"brighter one in {share['value']:.1f} % ({share['low']:.1f} to "
        f"{share['high']:.1f}); a coin reaches 50 %, and the mean picture of each class "
        f"{blurred:.1f} %. From the labels' capsules, found or not, the "
        f"reconstructions are {error:.1f} squared pixels off per digit on average of {of}; "
        f"answers that need no network: {trivial}."
    )


SECTION = Section("What the capsules reconstruct", {"figures/reconstructions.png": reconstructions})
