"""Stage `check`: is params.yaml sound? Everything else waits for it.

DVC deletes a stage's old results before the stage starts, so a mistake in params.yaml that is
noticed only there has already cost them. The file written is always the same: a passed check makes
nothing else stale.
"""

import argparse
from pathlib import Path

from capsnet.config import load, resolve
from capsnet.params import Params
from stages.command import run, torchrun_arguments
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
    check_launcher(params)
    write_text(arguments.out, "params.yaml is sound\n")


def check_launcher(params: Params) -> None:
    """Raises ValueError if torchrun does not know its options, or a batch cannot be shared."""
    if params.launcher == "python":
        return
    asked = torchrun_arguments(params.launcher, "stages.train")
    machines, each = asked.nnodes.partition(":")[2] or asked.nnodes, str(asked.nproc_per_node)
    if not (machines.isdigit() and each.isdigit()):
        return  # "gpu", say: as many as there are
    processes = int(machines) * int(each)
    for name, settings in params.runs.items():
        size = resolve(params, name).task.batch_size
        if size % processes:
            place = f"params.yaml: tasks.{settings.task}.batch_size.{params.budget}"
            wanted = f"a multiple of {processes}, the processes of launcher"
            raise ValueError(f"{place}: got {size}, wanted {wanted}")


if __name__ == "__main__":
    run(main, "check")
