"""Download MNIST, or write the digits of scikit-learn as MNIST's four archives.

The budget in params.yaml chooses the source.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.download` in the repository root")

import os
import shutil

from capsnet import program_parser
from capsnet.config import load
from capsnet.data.sources import fetch_mnist, write_small_digits
from capsnet.paths import STUDY_PARAMS, digits_folder
from stages.command import run


def main() -> None:
    parser = program_parser(__spec__.name, __doc__)
    parser.add_argument("--study", action="store_true", help="the digits of study/params.yaml")
    study = parser.parse_args().study
    params, out = load(override=STUDY_PARAMS if study else None), digits_folder(study=study)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a download that was killed
    partial.mkdir(parents=True)
    try:
        if params.source == "mnist":
            own = os.environ.get("MNIST_MIRROR")
            fetch_mnist(partial, [own] if own else params.data.mirrors)
        else:
            write_small_digits(partial)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"digits from {params.source} are in {out}")
    print(f"{out} is replaced each time, digits of your own: docs/extending.md, A data set")


if __name__ == "__main__":
    run(main, "download")
