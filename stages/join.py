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
    before, ours, theirs = (side(number) for number in (1, 2, 3))
    names = ours.keys() | theirs.keys()
    changed = {name for name in names - {"report"} if ours.get(name) != theirs.get(name)}
    by_us, by_them = (
        {name for name in changed if side.get(name) != before.get(name)} for side in (ours, theirs)
    )
    twice = by_us & by_them
    if twice:
        raise ValueError(
            f"{LOCK}: both sides did {', '.join(sorted(twice))}: nothing is changed; choose a side "
            f"with `git checkout --ours {LOCK} reports/study` or --theirs"
        )
    stages = ours | {name: theirs.get(name) for name in by_them}
    stages = {name: stage for name, stage in stages.items() if stage is not None}
    write_text(LOCK, yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
    print(f"{LOCK}: {len(stages)} stages, {len(by_them & stages.keys())} of them theirs")


def side(number: int) -> dict[str, object]:
    """Stages of the file as it was before the two sides parted (1), is with us (2) and them (3)."""
    command = ["git", "show", f":{number}:{LOCK}"]
    shown = subprocess.run(command, capture_output=True, text=True)
    if shown.returncode != 0 and number == 1:  # neither side had the file then
        return {}
    if shown.returncode != 0:
        raise ValueError(f"{LOCK}: no merge of two sides is under way: run `git pull` first")
    return yaml.safe_load(shown.stdout)["stages"]


if __name__ == "__main__":
    run(main, "join")
