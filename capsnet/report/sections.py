"""What is measured of a run, by topic: figures under the sentences that say what they show."""

import os
from collections.abc import Iterator
from pathlib import Path

from capsnet.config import RunConfig
from capsnet.studies.registry import STUDIES, part
from capsnet.studies.results import Results, Section


def sections() -> dict[str, Section]:
    """The section of every topic that has one."""
    shown = [topic for topic, study in STUDIES.items() if study.shown]
    return {topic: part(topic, "describe").SECTION for topic in shown}


def report_of(results: Results, config: RunConfig, folder: Path, here: Path) -> Iterator[str]:
    """The parts of a report of one run whose tables and figures are in `folder`."""
    found, examples = results.headline, results.tables["training"]["examples"].iloc[-1]
    yield f"# {results.name}: {config.network} on {config.task.name}, {examples:,} images shown"
    yield (
        f"Test error {found['error']:.2f} % ({found['error_low']:.2f} to "
        f"{found['error_high']:.2f}, 95 %, Wilson's of this one network). Every sentence below is "
        "made from the tables of this run, which stand beside its figures."
    )
    for section in sections().values():
        figures = list(figures_of(section, results, config, folder, here))
        if figures:
            yield f"## {section.heading}"
            yield from figures


def figures_of(
    section: Section, results: Results, config: RunConfig, folder: Path, here: Path
) -> Iterator[str]:
    """The figures of a topic that a run has, each under the sentence of what it shows."""
    name = results.name
    for file, finding in section.findings.items():
        path = folder / file
        if path.exists():
            sentence = finding(results, config)
            yield f"**{name}.** {sentence}\n\n![{name}: {path.stem}]({relative(path, here)})"
    folded = sorted(folder.glob(section.folded)) if section.folded else []
    if folded:
        pictures = [f"![{path.stem.replace('_', ' ')}]({relative(path, here)})" for path in folded]
        head = f"<details><summary>{name}: every dimension of every digit (Figure 4)</summary>"
        yield "\n\n".join([head, *pictures, "</details>"])


def relative(path: Path, here: Path) -> str:
    return Path(os.path.relpath(path, here)).as_posix()
