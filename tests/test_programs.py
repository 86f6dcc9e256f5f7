"""Programs and stages explain themselves, and name a wrong start in one line."""

import runpy
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from zipfile import ZipFile

import pytest

from capsnet import __main__ as listing
from capsnet import check_python
from capsnet.learning.log import progress_line
from stages.command import require_root

ROOT = Path(__file__).parent.parent
FILES = [
    path.relative_to(ROOT)
    for folder in ("capsnet", "stages")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text() and path != Path(listing.__file__)
]


def command(file: Path) -> str:
    """The command that starts the program in `file`."""
    return "python -m " + ".".join(file.with_suffix("").parts).removesuffix(".__main__")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_help_has_a_sentence_every_argument_and_a_valid_example(file, monkeypatch, capsys):
    """`python -m capsnet` lists the program; started as a script it names its command."""
    parsers = []

    def stop(parser: ArgumentParser) -> None:
        parsers.append(parser)
        raise SystemExit

    module = import_module(".".join(file.with_suffix("").parts))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(ArgumentParser, name, stop)
        module.main()
    [parser] = parsers
    assert parser.prog == command(file) and parser.description.splitlines()[0].endswith(".")
    assert all(action.help for action in parser._actions)
    example = parser.epilog.removeprefix("example: ")
    assert example.startswith(parser.prog)
    parser.parse_args(shlex.split(example.removeprefix(parser.prog)))
    listing.main()
    assert any(f"{command(file)} " in line for line in capsys.readouterr().out.splitlines())
    with pytest.raises(SystemExit, match=f"`{command(file)}`"):
        runpy.run_path(str(ROOT / file), run_name="__main__")


def test_a_missing_package_is_one_line():
    """Python without its site packages stands for an environment that is not active."""
    start = [sys.executable, "-S", "-m", "stages.train", "mnist"]
    done = subprocess.run(start, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("No module named ") and ".venv/bin/activate" in done.stderr


def test_an_editable_install_has_the_packages_and_requires_what_requirements_txt_names(tmp_path):
    shutil.copytree(ROOT / "capsnet", tmp_path / "capsnet")
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "stages").mkdir()  # another folder at the top
    code = "from setuptools.build_meta import build_editable; build_editable('wheel')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    [wheel] = (tmp_path / "wheel").iterdir()
    with ZipFile(wheel) as files:
        [metadata] = (name for name in files.namelist() if name.endswith("/METADATA"))
        lines = files.read(metadata).decode().splitlines()
        [finder] = (name for name in files.namelist() if name.endswith("_finder.py"))
        assert f"{{'capsnet': '{tmp_path / 'capsnet'}'}}" in files.read(finder).decode()
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line]
    named = (ROOT / "requirements.txt").read_text().splitlines()
    named = [line.partition(" ")[0].strip(";") for line in named if not line.startswith("#")]
    assert [line.partition(";")[0] for line in wanted] == named


def test_another_python_is_named():
    for minor in (10, 14):
        with pytest.raises(SystemExit, match=f"this is 3.{minor}.7"):
            check_python((3, minor, 7))
    check_python((3, 11, 7))


def test_a_sub_folder_of_the_repository_is_named(tmp_path):
    for folder, way in {"study": "cd ..", "capsnet/data": "cd ../.."}.items():
        with pytest.raises(ValueError, match=f"repository root: {way}$"):
            require_root(ROOT / folder)
    require_root(ROOT)
    require_root(tmp_path)  # a copy of params.yaml elsewhere


def test_a_line_of_progress_has_percent_speed_and_time_left():
    """Resumed after 400 of 4,000 images, 800 took 8 s: 30 %, 100 a second, 2,800 are left."""
    line = progress_line("mnist", 1200, 4000, 8.0, first=400)
    assert line == "mnist: 30 % of 4,000 images, 100.00 images/s, 00:28 left"
