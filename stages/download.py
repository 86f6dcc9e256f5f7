"""Stage `download`: write the digits as MNIST's four archives, whatever their source."""

import argparse
import os
import shutil
from pathlib import Path

from capsnet.config import load
from capsnet.data.sources import fetch_mnist, write_small_digits
from stages.command import OVERRIDE, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the four archives")
    parser.add_argument("--override", type=Path, help=OVERRIDE)
    arguments = parser.parse_args()
    out, params = arguments.out, load(override=arguments.override)
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
