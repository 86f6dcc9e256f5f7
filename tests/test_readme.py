"""README and docs/: results, links and programs are those of the repository."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_results_are_those_of_the_reports():
    """Error and 95 % interval of each row, in the order of the table."""
    reports = ROOT / "reports"
    robustness = pd.read_csv(
        reports / "laptop" / "runs" / "mnist" / "robustness.csv", index_col="transform"
    )
    mnist, multimnist, gpu = (
        json.loads((reports / place / "metrics.json").read_text())[budget][place.split("/")[-1]]
        for budget, place in (
            ("laptop", "laptop/runs/mnist"),
            ("laptop", "laptop/runs/multimnist"),
            ("gpu", "study/gpu"),
        )
    )
    columns = ("error", "error_low", "error_high")
    rows = (mnist, robustness.loc["random_affine"], multimnist, gpu)
    measured = [tuple(f"{row[column]:.2f}" for column in columns) for row in rows]
    table = re.findall(r"\*\*([\d.]+)\*\* \| ([\d.]+) to ([\d.]+) \|", PAGES[0].read_text())
    assert table == measured


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_programs_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    programs = re.findall(r"python -m ([\w.]+)", text)
    assert [program for program in programs if find_spec(program) is None] == []
