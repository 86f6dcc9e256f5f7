"""Validate params.yaml before any other stage starts.

DVC deletes the old results of a stage before it starts, so an error found later would cost them.
The file written is always the same: a passed check makes nothing else stale.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.check` in the repository root")

from pathlib import Path

import torch

from capsnet import program_parser
from capsnet.config import load, resolve
from capsnet.files import write_text
from capsnet.nn.registry import network_class
from capsnet.paths import from_root
from stages.command import run


def main() -> None:
    program_parser(__spec__.name, __doc__).parse_args()
    params = load()
    for run_name in params.runs:  # sizes that do not fit
        config = resolve(params, run_name)
        try:
            with torch.device("meta"):  # of ten classes and one channel
                network_class(config.network)(**config.arguments)
        except ValueError as error:
            raise ValueError(f"params.yaml: runs.{run_name}: {error}") from None
    affnist = params.data.affnist
    if affnist is not None and not from_root(affnist).exists():
        raise ValueError(f"params.yaml: data.affnist: there is no file or folder {affnist!r}")
    folder = params.data.folder
    if params.source == "folder" and not Path(folder).is_dir():
        raise ValueError(f"params.yaml: data.folder: there is no folder {folder!r}")
    write_text(Path("data/params.ok"), "params.yaml is sound\n")


if __name__ == "__main__":
    run(main, "check")
