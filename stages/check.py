"""Stage `check`: is params.yaml sound? Everything else waits for it.

DVC deletes a stage's old results before the stage starts, so a mistake in params.yaml that is
noticed only there has already cost them. The file written is always the same: a passed check makes
nothing else stale.
"""

import argparse
from pathlib import Path

from capsnet.config import load
from stages.command import run
from stages.output import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="file to write when params.yaml is sound"
    )
    arguments = parser.parse_args()
    params = load()
    affnist = params.data.affnist
    if affnist is not None and not Path(affnist).exists():
        raise ValueError(f"params.yaml: data.affnist: there is no file or folder {affnist!r}")
    write_text(arguments.out, "params.yaml is sound\n")


if __name__ == "__main__":
    run(main, "check")
