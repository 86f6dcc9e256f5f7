"""The headline table, and where the errors are."""

import pandas as pd

from capsnet.config import RunConfig
from capsnet.studies.results import FEW, Results, Section, markdown, number, with_sd
from capsnet.studies.seeds.measure import row_name
from capsnet.studies.seeds.paper import published


def headline(configs: dict[str, RunConfig], measured: dict[str, Results]) -> str:
    """Test error of each run and, on MNIST, of the paper, as a Markdown table. Where the classes
    of a test have different numbers of examples also the balanced accuracy.
    """
    uneven = any("test_balanced_accuracy" in results.headline for results in measured.values())
    return markdown(
        {
            "run": name,
            "network": row_name(config, usual_peak=config.learning_rate.peak),
            "task": config.task.name,
            "test error %": f"**{found['test_error']:.2f}**",
            "95 % interval": f"{found['test_error_low']:.2f} to {found['test_error_high']:.2f}",
            "examples": f"{measured[name].tables['errors']['examples'].iloc[0]:,}",
        }
        | ({"balanced accuracy %": number(found.get("test_balanced_accuracy"))} if uneven else {})
        | ({"paper %": with_sd(*published(config), "g")} if config.source == "mnist" else {})
        for name, config in configs.items()
        for found in [measured[name].headline]
    )


def overlap(results: Results, config: RunConfig) -> str:
    table, apart = group(results, "overlap"), results.tables["separation"]
    share = 100 * table["examples"] / table["examples"].sum()
    table = table.assign(share=share)[table["examples"] >= FEW]
    boxes = apart.loc[apart["measure"] == "box_overlap", "value"].item()
    sentence = f"Bounding boxes: {boxes:.0f} % of the smaller one is covered on average. "
    if config.source == "mnist":
        sentence += "The paper has 80 % and does not say of which box. "
    if len(table) < 2:
        return f"{sentence}There are too few pairs to compare the errors by overlap."
    first, last, most = table.iloc[0], table.iloc[-1], table.loc[table["share"].idxmax()]
    rises = "rises" if last["error_low"] > first["error_high"] else "does not clearly rise"
    return sentence + (
        f"Ink: {most['share']:.0f} % of the pairs share {most['name']} of the smaller digit's ink. "
        f"The error {rises} with the overlap: {first['error']:.1f} % at {first['name']}, "
        f"{last['error']:.1f} % at {last['name']} (ranges with at least {FEW} pairs)."
    )


def pairs(results: Results, config: RunConfig) -> str:
    table = group(results, "pair")
    worst, best = table.loc[table["error"].idxmax()], table.loc[table["error"].idxmin()]
    return (
        f"Highest error: {worst['error']:.0f} %, of the digits {worst['name']}. Lowest: "
        f"{best['error']:.0f} %, of {best['name']}. These are the extremes of {len(table)} pairs "
        f"with about {table['examples'].median():.0f} examples each, so chance contributes."
    )


def confusion(results: Results, config: RunConfig) -> str:
    table = results.tables["confusion"]
    mistakes = table[table["label"] != table["prediction"]]
    if not mistakes["count"].any():
        return "No digit is confused with another."
    times = mistakes["count"].max()
    most = mistakes[mistakes["count"] == times]
    names = ", ".join(f"{row.label} predicted as {row.prediction}" for row in most.itertuples())
    sentence = f"Most frequent confusion: {names} ({times:,} times)."
    if times == 1:
        sentence = "No digit is confused with the same other digit twice."
    if config.task.num_digits > 1:
        sentence += " Where both digits of a pair are missed, their order is arbitrary."
    return sentence


def group(results: Results, name: str) -> pd.DataFrame:
    """The rows of one group in the table of errors."""
    table = results.tables["errors"]
    return table[table["group"] == name]


SECTION = Section("Where the errors are", (overlap, pairs, confusion))
