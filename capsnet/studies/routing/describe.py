"""What routing does, in sentences."""

from capsnet.config import RunConfig
from capsnet.studies.results import Results, Section


def routing(results: Results, config: RunConfig) -> str:
    table, trained = results.tables["routing"], config.routing.iterations
    by_name = {name: by_iteration(results, name) for name in table["measure"].unique()}
    last = trained - 1
    examples = table["examples"].max()
    share, largest, votes, positive, length, error, change, between, moved = (
        by_name[name]
        for name in (
            "contributed_coupling", "largest_coupling", "votes", "positive_share", "length",
            "error", "logit_change", "logit_change_change", "coupling_change",
        )
    )  # fmt: skip
    more = (
        f"with {len(error)} iterations the same weights have an error of {error[-1]:.2f} %. "
        f"Means over {examples:,} test examples."
    )
    if trained == 1:
        return (
            f"One pass, so every coupling is even; {votes[0]:.0f} votes carry 80 % of what a "
            f"digit's capsule is made of. Its length is {length[0]:.2f}, the error "
            f"{error[0]:.2f} %; {more}"
        )
    of_last = table[(table["measure"] == "error") & (table["iteration"] == trained)].iloc[0]
    stopped = " or ".join(f"{each:.2f}" for each in error[:last])
    moves = [
        f"{what} {'grows' if values[last] > values[first] else 'shrinks'} from "
        f"{values[first]:.3g} to {values[last]:.3g}{unit}"
        for what, values, first, unit in (
            ("that change", change, 0, ""),
            ("what it differs by from the one before", between, 1, ""),
            ("the change of a coupling", moved, 1, " points"),
        )
    ]
    return (
        f"Each vote weighed by what it adds to the capsule of a digit that is there, the coupling "
        f"to that capsule goes from {share[0]:.0f} to {share[last]:.0f} % over the {trained} "
        f"iterations (the largest one of an image from {largest[0]:.0f} to {largest[last]:.0f} %), "
        f"the capsule's length from {length[0]:.2f} to {length[last]:.2f}. At first "
        f"{votes[0]:.0f} votes carry 80 % of it, in the end {votes[last]:.0f}. All votes that "
        f"point its way add {positive[last]:.0f} % of it, the others, which so weigh less than "
        f"nothing, take {positive[last] - 100:.0f} % away. "
        f"As trained the error is {error[last]:.2f} % ({of_last['low']:.1f} to "
        f"{of_last['high']:.1f}), stopped earlier {stopped} %; {more} "
        f"By Procedure 1 a logit changes by vote times capsule. Over the iterations "
        f"{moves[0]}, {moves[1]}, {moves[2]}. Figure A.1 of the paper is said to be the mean "
        "change of a logit, and to shrink; which of these it shows is not known."
    )


def couplings(results: Results, config: RunConfig) -> str:
    last = config.routing.iterations - 1
    own, other, absent = (
        by_iteration(results, f"{name}_coupling")[last] for name in ("own", "other", "absent")
    )
    if config.task.num_digits == 1:
        beside = f"each wrong digit's {absent:.1f} %"
    else:
        beside = f"the other digit's {other:.1f} % and each absent digit's {absent:.1f} %"
    return (
        "Which primary capsules lean to which digit: at a digit's own places its capsule gets "
        f"{own:.1f} % of the coupling, {beside}. The colours show even small leanings."
    )


def by_iteration(results: Results, measure: str) -> list[float]:
    """One measure of the routing, an entry for each iteration."""
    table = results.tables["routing"]
    return table.loc[table["measure"] == measure, "value"].tolist()


SECTION = Section(
    "What routing does", {"figures/routing.png": routing, "figures/couplings.png": couplings}
)
