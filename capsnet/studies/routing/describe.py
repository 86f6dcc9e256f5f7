"""What routing does, in sentences."""

import pandas as pd

from capsnet.config import RunConfig
from capsnet.studies.results import Results, Section


def routing(results: Results, config: RunConfig) -> str:
    table, trained = results.tables["routing"], config.routing.iterations
    found = table.groupby("measure")["value"].apply(list)  # an entry for each iteration
    error, votes, length = found["error"], found["votes"], found["length"]
    more = (
        f"With {len(error)} iterations the same weights have an error of {error[-1]:.2f} %. "
        f"{rises(table, trained)}Values are means over {table['examples'].max():,} test examples."
    )
    if trained == 1:
        return (
            f"With one iteration every coupling is equal. {votes[0]:.0f} votes carry 80 % of the "
            f"class capsule of a digit in the image. Its length is {length[0]:.2f}. The error is "
            f"{error[0]:.2f} %. {more}"
        )
    last = trained - 1
    share, largest = found["contributed_coupling"], found["largest_coupling"]
    positive, stopped = found["positive_share"][last], " or ".join(f"{e:.2f}" for e in error[:last])
    interval = table[(table["measure"] == "error") & (table["iteration"] == trained)].iloc[0]
    return (
        f"From the first to the last of {trained} iterations, for the class capsule of a digit in "
        f"the image: the coupling of its votes, weighted by their contribution, goes from "
        f"{share[0]:.0f} to {share[last]:.0f} %, the largest coupling of an image from "
        f"{largest[0]:.0f} to {largest[last]:.0f} %, the length from {length[0]:.2f} to "
        f"{length[last]:.2f}. {votes[0]:.0f} votes carry 80 % of the capsule at first, "
        f"{votes[last]:.0f} at the end. Votes in its direction add {positive:.0f} % of it, "
        f"opposite votes take away {positive - 100:.0f} %. The error is {error[last]:.2f} % "
        f"({interval['low']:.1f} to {interval['high']:.1f}) as trained, {stopped} % if routing "
        f"stops earlier. {more} In Procedure 1 a logit changes by the product of vote and capsule. "
        f"That change {trend(found['logit_change'][:trained])}. Its difference from the previous "
        f"iteration {trend(found['logit_change_change'][1:trained])}. The change of a coupling "
        f"{trend(found['coupling_change'][1:trained])} points. Figure A.1 of the paper shows a "
        "mean change of the logits that shrinks. It is not known which of these it shows."
    )


def rises(table: pd.DataFrame, trained: int) -> str:
    """Where the error rises over the iterations, and why; empty where it does not."""
    rows = table.set_index(["measure", "iteration"]).sort_index()
    error, low = rows.loc["error", "value"], rows.loc["error", "low"]
    spans = [
        f"from iteration {start} to {end}"
        + (" (within the interval)" if low[end] <= error[start] else "")
        for start, end in ((1, trained), (trained, error.index[-1]))
        if error[start] < error[end]
    ]
    if not spans:
        return ""
    largest = rows.loc["largest_coupling", "value"]
    sentence = f"The error rises {' and '.join(spans)}: the weights are trained for {trained}. "
    if largest.iloc[-1] > largest[1]:
        sentence += (
            f"Each iteration polarises the couplings, the largest from {largest[1]:.0f} over "
            f"{largest[trained]:.0f} to {largest.iloc[-1]:.0f} %, whether or not the class is "
            "right (Paik et al. 2019). "
        )
    return sentence


def trend(values: list[float]) -> str:
    if len(values) == 1:
        return f"is {values[0]:.3g}"
    verb = "grows" if values[-1] > values[0] else "shrinks"
    return f"{verb} from {values[0]:.3g} to {values[-1]:.3g}"


def votes(results: Results, config: RunConfig) -> str:
    table = results.tables["routing"]
    last = table[table["iteration"] == config.routing.iterations].set_index("measure")["value"]
    own, other, absent = (
        f"{last[f'{name}_coupling']:.1f} %" for name in ("own", "other", "absent")
    )
    rest = f"{other} to the other digit's and {absent} to that of each absent digit"
    if config.task.num_digits == 1:
        rest = f"{absent} to that of each wrong digit"
    return (
        "The votes for a digit, by the place that they come from. Mean couplings of the primary "
        f"capsules at a digit's own places: {own} to the digit's class capsule, {rest}."
    )


SECTION = Section("What routing does", (routing, votes))
