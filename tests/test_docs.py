"""All pages and the tutorial: results, links, programs and commands are those of the repository."""

import json
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIAL = ROOT / "notebooks" / "capsules.ipynb"
FOLDERS = ("docs", "pretrained", "reports")
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md"))]
PAGES += [*ROOT.glob("*.md"), TUTORIAL]


def text_of(page: Path) -> str:
    """A page as Markdown; of a notebook its text cells."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as a code host and Jupyter make them."""
    headings = re.findall(r"^#+ (.*)", text_of(page), re.MULTILINE)
    if page.suffix == ".ipynb":
        return {heading.replace(" ", "-") for heading in headings}
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_results_are_those_of_the_reports():
    """Error and 95 % interval of each row, in the order of the table."""
    places = ("laptop/runs/mnist", "laptop/runs/multimnist", "study/runs/compact_mnist")
    places += ("study/runs/r3_104k", "study/gpu", "study/runs/gpu_compact")
    measured = []
    for place in places:
        found = json.loads((ROOT / "reports" / place / "metrics.json").read_text())
        [row] = (runs[place.split("/")[-1]] for runs in found.values())
        columns = ("test_error", "test_error_low", "test_error_high")
        measured.append(tuple(f"{row[column]:.2f}" for column in columns))
    readme = (ROOT / "README.md").read_text()
    assert re.findall(r"\*\*([\d.]+)\*\* \| ([\d.]+) to ([\d.]+) \|", readme) == measured


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_programs_exist(page):
    text, broken = text_of(page), []
    for link in re.findall(r"\]\((?!https?:)(\S+?)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
    programs = re.findall(r"python -m ([\w.]+)", text)
    assert [program for program in programs if find_spec(program) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_no_syntax_errors(page):
    """A placeholder is a word like NAME: the shell reads <name> as a redirection."""
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text_of(page), re.M | re.S):
        if language == "bash":
            done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
            assert done.stderr == "", block
        if language == "python" and page == TUTORIAL:  # the solutions; elsewhere also fragments
            compile(block, page.name, "exec")


def test_the_two_forms_of_the_tutorial_are_equal():
    jupytext = pytest.importorskip("jupytext", reason="of requirements-docs.txt")
    forms = [jupytext.read(TUTORIAL.with_suffix(suffix)).cells for suffix in (".py", ".ipynb")]
    script, notebook = ([(cell.cell_type, cell.source) for cell in cells] for cells in forms)
    assert script == notebook
