"""Does routing matter? Rows of runs side by side, as tables, sentences and figures."""

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from capsnet.config import Params
from capsnet.report.draw import comparison
from capsnet.report.rows import Difference, Row, differences, interval_of, rows_of
from capsnet.report.tables import markdown
from capsnet.studies.results import Results

HOW = """No run here has another beside it; rows of several seeds are compared in the study,
`reports/study/study.md`. To train one without agreement:

```bash
dvc exp run -S '+runs.once={task: multimnist, network: capsnet, iterations: 1}'
```

With one iteration the couplings stay even. `--queue` lines several up."""


def rows_table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        low, high, of = interval_of(row)
        validation = [run.headline["validation_error"] for run in row.runs]
        spread, apart = (
            f" ± {stdev(each):.2f}" if len(each) > 1 else ""
            for each in (row.errors, row.separation)
        )
        told_apart = f"{mean(row.separation):.2f}{apart}" if row.separation else "-"
        speed = mean(run.headline["images_per_second"] for run in row.runs)
        lines.append(
            {
                "row": row.name,
                "task": row.task,
                "images shown": f"{row.examples:,}",
                "networks": str(len(row.runs)),
                "test error %": f"**{mean(row.errors):.2f}**{spread}",
                "95 % interval": f"{low:.2f} to {high:.2f} ({of})",
                "validation error %": "-" if None in validation else f"{mean(validation):.2f}",
                "told apart %": told_apart,
                "GMAC": f"{row.multiply_adds / 1e9:.2f}",
                "images/s": f"{speed:.0f}",
                "paper %": row.paper or "-",
            }
        )
    return markdown(lines)


def differences_table(found: list[tuple[str, Difference]]) -> str:
    return markdown(
        [
            {
                "the same": alike,
                "row": one.second,
                "beside": one.first,
                "difference, points": f"**{one.value:+.2f}**",
                "95 % interval": f"{one.low:+.2f} to {one.high:+.2f}",
                "times the errors": f"{one.ratio:.2f}",
                "in the paper": f"{one.published:.2f}" if one.published else "-",
                "compared": one.of,
                "verdict": one.verdict,
            }
            for alike, one in found
        ]
    )


def controls(
    params: Params, measured: dict[str, Results], drawn: Path, here: Path
) -> Iterator[str]:
    """The section: rows, figures and sentences for each task with several rows, or how to."""
    yield "## Does routing matter?"
    rows = rows_of(params, measured)
    compared = False
    for task in dict.fromkeys(row.task for row in rows):
        of_task = [row for row in rows if row.task == task]
        if len(of_task) < 2:
            continue
        compared = True
        yield rows_table(of_task)
        path = drawn / f"controls_{task}.png"
        draw(of_task, path, title=f"{task}: test error of each row, with 95 % interval")
        yield f"![{task}: rows side by side]({Path(os.path.relpath(path, here)).as_posix()})"
        found = differences(of_task)
        if found:
            yield "\n".join(f"- With the same {alike}: {one}" for alike, one in found)
    if not compared:
        yield HOW


def draw(rows: list[Row], path: Path, *, title: str) -> None:
    lengths = {row.examples for row in rows}
    table = pd.DataFrame(
        {
            "name": row.name + (f", {row.examples:,} shown" if len(lengths) > 1 else ""),
            "error": mean(row.errors),
            **dict(zip(("error_low", "error_high"), interval_of(row)[:2], strict=True)),
            "paper": float(row.paper.split()[0]) if row.paper else float("nan"),
        }
        for row in rows
    )
    comparison(table, path, title=title)
