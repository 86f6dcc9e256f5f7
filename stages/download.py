"""Stage `download`: write the digits as MNIST's four archives, whatever their source."""

import argparse
import os
import shutil

from capsnet.config import load
from capsnet.data.sources import fetch_mnist, write_small_digits
from capsnet.paths import STUDY_PARAMS, digits_folder
from stages.command import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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


if __name__ == "__main__":
    run(main, "download")
