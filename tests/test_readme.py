"""Each command of README is run by a test or by CI, or stands here with the reason why not; each
result that it names is in the reports.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIPELINE = "tests/test_pipeline.py::test_"
STUDY = "tests/test_study_pipeline.py::test_the_study_trains_what_is_missing"
RUN_BY = {  # how a command begins (or is, where another begins alike) -> where it is run
    "python3 -m venv": ".ci/run",
    "dvc exp run -S routing": PIPELINE + "the_queue_runs_two_experiments_at_once",
    "dvc params diff": PIPELINE + "the_diffs_fit_a_terminal",
    "dvc metrics diff": PIPELINE + "the_diffs_fit_a_terminal",
    "dvc exp show": PIPELINE + "the_diffs_fit_a_terminal",
    "dvc exp run -S '+runs.once": "tests/stages/test_every_run.py::test_a_run_goes_through",
    "dvc exp run -S '+runs.baseline": PIPELINE + "the_queue_runs_two_experiments_at_once",
    "dvc exp run --queue": PIPELINE + "the_queue_runs_two_experiments_at_once",
    "dvc queue status": PIPELINE + "the_queue_runs_two_experiments_at_once",
    "git config": PIPELINE + "repro_makes_every_result",
    "dvc repro": PIPELINE + "repro_makes_every_result",
    "dvc repro --dry": PIPELINE + "a_second_repro_runs_nothing",
    "dvc --cd study repro": STUDY,
    "dvc exp run -S '+runs.control": "tests/stages/test_every_run.py::test_a_run_goes_through",
    "dvc exp run -S budget=quick -S '+runs.wide": (
        "tests/stages/test_every_run.py::test_a_run_goes_through"
    ),
    "dvc exp run": PIPELINE + "the_queue_runs_two_experiments_at_once",
    "MNIST_MIRROR=": "tests/stages/test_download.py::test_",
    "python -m capsnet.predict": "tests/reading/test_predict.py::test_figure",
    "python -m capsnet.benchmark": "tests/test_benchmark.py::test_four_files_and_no_other",
    "python -m capsnet.explore": "tests/test_explore.py::test_the_program_writes_the_page",
    "mlflow models serve": "tests/reading/test_serving.py::test_an_image_posted",
    "curl": "tests/reading/test_serving.py::test_an_image_posted",
    "dvc remote add": PIPELINE + "a_clone_pulls_what_was_pushed_and_runs_nothing",
    "dvc push": PIPELINE + "a_clone_pulls_what_was_pushed_and_runs_nothing",
    "dvc pull": PIPELINE + "a_clone_pulls_what_was_pushed_and_runs_nothing",
    "dvc exp push": PIPELINE + "experiments_travel_through_a_bare_repository",
    "dvc exp list": PIPELINE + "experiments_travel_through_a_bare_repository",
    "dvc exp pull": PIPELINE + "experiments_travel_through_a_bare_repository",
    "mlflow server": "tests/test_tracking.py::test_a_training_logs_to_a_server",
    "python -m pytest": ".ci/run",
    "ruff check": ".ci/run",
    "ruff format": ".ci/run",
    "bash .ci/run": ".ci/run",
}
NOT_RUN = {
    "python -m tests.interruption": "minutes; test_interruption.py calls the same with few kills",
    "uv venv": "uv is not among the requirements; pip installs the same pins in CI",
    "dvc plots diff": "a page with scripts from a CDN; `dvc plots show` runs in test_pipeline.py",
    "echo": "writes the file of the next command",
    "mlflow models predict": "answers by the code that `mlflow models serve` is tested with",
    "mlflow ui": "a web page that does not end; its store is read in test_pipeline.py",
    "git checkout": "git's own",
    "python -m tests.browser": "test_explore.py takes its pictures by the same code",
    "createdb": "PostgreSQL's own",
    "export": "the test sets the same variable",
    "dvc remote modify": "of those who have such a remote",
}


def commands() -> list[str]:
    """The lines of the shell blocks, and what begins like a command between backticks."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    begins = re.compile(r"(?:MNIST_MIRROR=.*)?(?:dvc|mlflow|python -m|git|bash|ruff) ")
    return lines + [words for words in inline if begins.match(words)]


def test_every_command_is_run_or_has_a_reason():
    for command in commands():
        known = [start for start in RUN_BY | NOT_RUN if command.startswith(start)]
        assert known, f"README: {command}: name the test that runs it in {Path(__file__).name}"


def test_what_runs_a_command_exists():
    for place in RUN_BY.values():
        file, _, name = place.partition("::")
        assert f"def {name}" in (ROOT / file).read_text() or not name, place


def test_no_entry_without_a_command():
    for start in RUN_BY | NOT_RUN:
        assert any(command.startswith(start) for command in commands()), start


def test_every_result_is_that_of_the_reports():
    """What is bold in a row of a table stands so in the report that it comes from."""
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if "| **" in line]
    reports = (ROOT / "reports" / "summary.md", ROOT / "reports" / "study" / "study.md")
    found = "".join(report.read_text() for report in reports).replace("**", "")
    results = [re.search(r"\*\*([\d.]+)\*\*((?: ± [\d.]+)?)", row).groups() for row in rows]
    assert len(results) > 5
    for mean, spread in results:
        assert re.search(rf"(?<![\d.]){re.escape(mean + spread)}(?![\d.])", found), mean
