"""After two machines trained different runs of the study: both in study/dvc.lock.

DVC keeps what is done in one file, which git cannot merge by itself. Run `python -m stages.join` in
the middle of that merge; it takes the runs of both sides.
"""

import subprocess
from pathlib import Path

import yaml

from stages.command import run
from stages.output import write_text

LOCK = Path("study/dvc.lock")


def main() -> None:
    ours, theirs = (side(number) for number in (2, 3))
    twice = [
        name for name in ours.keys() & theirs.keys() - {"report"} if ours[name] != theirs[name]
    ]
    if twice:
        raise ValueError(
            f"{LOCK}: both sides did {', '.join(sorted(twice))}: nothing is changed; choose a side "
            f"with `git checkout --ours {LOCK} reports/study` or --theirs"
        )
    lock = {"schema": "2.0", "stages": theirs | ours}  # the report is made anew in any case
    write_text(LOCK, yaml.safe_dump(lock, sort_keys=False))
    print(
        f"{LOCK}: {len(lock['stages'])} stages, {len(theirs.keys() - ours.keys())} of them theirs"
    )


def side(number: int) -> dict[str, object]:
    """Stages of the file as it is on one side of the merge: 2 ours, 3 theirs."""
    command = ["git", "show", f":{number}:{LOCK}"]
    shown = subprocess.run(command, capture_output=True, text=True)
    if shown.returncode != 0:
        raise ValueError(f"{LOCK}: no merge of two sides is under way: run `git pull` first")
    return yaml.safe_load(shown.stdout)["stages"]


if __name__ == "__main__":
    run(main, "join")
