"""Get the data set and write its images as four archives like MNIST's.

`data.dataset` in params.yaml or, without it, `source` of the budget names the data set.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.download` in the repository root")

import os
import shutil

from capsnet import program_parser
from capsnet.config import load
from capsnet.data.mnist import save_digits
from capsnet.data.sources import Settings, make
from capsnet.paths import STUDY_PARAMS, digits_folder
from stages.command import run


def main() -> None:
    parser = program_parser(__spec__.name, __doc__)
    parser.add_argument("--study", action="store_true", help="the digits of study/params.yaml")
    study = parser.parse_args().study
    params, out = load(override=STUDY_PARAMS if study else None), digits_folder(study=study)
    chosen = {name: getattr(params.data, name) for name in Settings._fields if name != "local"}
    if mirror := os.environ.get("MNIST_MIRROR"):
        chosen["mirrors"] = [mirror]
    settings = Settings(local=os.environ.get("DATA_MIRROR"), **chosen)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a download that was killed
    partial.mkdir(parents=True)
    try:
        splits = make(params.source, partial, settings)
        save_digits(partial, splits)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    counts = " and ".join(f"{len(digits):,} {split}" for split, digits in splits.items())
    classes = f"{len(splits['train'].classes)} classes"
    print(f"{params.source}: {counts} images of {classes} are in {out}")
    print(f"{out} is replaced each time, pictures of your own: docs/data.md")


if __name__ == "__main__":
    run(main, "download")
