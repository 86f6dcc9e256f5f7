"""Where the errors are, in sentences."""

import pandas as pd

from capsnet.config import RunConfig
from capsnet.studies.results import FEW, Results, Section


def overlap(results: Results, config: RunConfig) -> str:
    table, apart = group(results, "overlap"), results.tables["separation"]
    share = 100 * table["examples"] / table["examples"].sum()
    table = table.assign(share=share)[table["examples"] >= FEW]
    boxes = apart.loc[apart["measure"] == "box_overlap", "value"].item()
    sentence = (
        f"Of the smaller of the digits' bounding boxes {boxes:.0f} % is covered on average (the "
        "paper: 80 %, of which box it does not say). "
    )
    if len(table) < 2:
        return sentence + "There are too few pairs to say how the error grows with the overlap."
    first, last, most = table.iloc[0], table.iloc[-1], table.loc[table["share"].idxmax()]
    grows = "grows" if last["error"] > first["error"] else "does not grow"
    return sentence + (
        f"Ink is shared less, in {most['share']:.0f} % of the pairs {most['name']} of the smaller "
        f"digit's. The error {grows} with it: {first['error']:.1f} % at {first['name']}, "
        f"{last['error']:.1f} % at {last['name']} (ranges with at least {FEW} pairs)."
    )


def pairs(results: Results, config: RunConfig) -> str:
    table = group(results, "pair")
    worst, best = table.loc[table["error"].idxmax()], table.loc[table["error"].idxmin()]
    return (
        f"Among the hardest to tell apart are {worst['name']} ({worst['error']:.0f} % wrong), "
        f"among the easiest {best['name']} ({best['error']:.0f} %): the ends of {len(table)} pairs "
        f"with about {table['examples'].median():.0f} examples each, which chance has a hand in."
    )


def confusion(results: Results, config: RunConfig) -> str:
    table = results.tables["confusion"]
    mistakes = table[table["label"] != table["prediction"]]
    if not mistakes["count"].any():
        return "No digit was taken for another."
    most = mistakes.loc[mistakes["count"].idxmax()]
    sentence = f"Most often a {most['label']} is taken for a {most['prediction']}"
    sentence += f" ({most['count']:,} times)."
    if config.task.num_digits > 1:
        sentence += " Where both digits of a pair were missed, which stands for which is a guess."
    return sentence


def group(results: Results, name: str) -> pd.DataFrame:
    """The rows of one group in the table of errors."""
    table = results.tables["errors"]
    return table[table["group"] == name]


SECTION = Section(
    "Where the errors are",
    {
        "figures/overlap.png": overlap,
        "figures/pairs.png": pairs,
        "figures/confusion.png": confusion,
    },
)
