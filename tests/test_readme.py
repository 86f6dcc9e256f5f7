"""README and docs/: results, links and programs are those of the repository."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_results_are_those_of_the_reports():
    """Error and 95 % interval of each row, in the order of the table."""
    places = ("laptop/runs/mnist", "laptop/runs/multimnist", "study/runs/compact_mnist")
    places += ("study/runs/r3_104k", "study/gpu")
    measured = []
    for place in places:
        found = json.loads((ROOT / "reports" / place / "metrics.json").read_text())
        [row] = (runs[place.split("/")[-1]] for runs in found.values())
        columns = ("error", "error_low", "error_high")
        measured.append(tuple(f"{row[column]:.2f}" for column in columns))
    table = re.findall(r"\*\*([\d.]+)\*\* \| ([\d.]+) to ([\d.]+) \|", PAGES[0].read_text())
    assert table == measured


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_programs_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    programs = re.findall(r"python -m ([\w.]+)", text)
    assert [program for program in programs if find_spec(program) is None] == []
