"""Write a web page that shows a trained network at work.

The page needs no server. The effects of the dimensions are measured here, which takes minutes.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m capsnet.explore` in the repository root")

import sys
from pathlib import Path

import torch

from capsnet import program_parser
from capsnet.checkpoint import describe
from capsnet.explore.page import can_be_explored, explorer
from capsnet.files import replace_file
from capsnet.learning.device import keep_freed_memory
from capsnet.learning.evaluation import load_evaluator
from capsnet.paths import digits_folder
from capsnet.reading.errors import known_error
from capsnet.studies.perturbation import measure as perturbation
from capsnet.studies.perturbation.effects import effect_table

DIGITS = digits_folder()
MEASURED = 50  # test examples of each digit behind the effect of a dimension
SHIFT = 4  # pixels, of each of two digits
NUM_VALUES = 11  # of a sweep


def main() -> None:
    parser = program_parser(__spec__.name, __doc__, "models/mnist.safetensors --out explorer.html")
    parser.add_argument("model", type=Path, help="checkpoint of a trained CapsNet with a decoder")
    parser.add_argument("--out", type=Path, help="page to write (default: <model>.html)")
    parser.add_argument(
        "--digits", type=Path, default=DIGITS, help=f"folder of the test digits (default: {DIGITS})"
    )
    parser.add_argument("--examples", type=int, default=10_000, help="test examples (default: all)")
    arguments = parser.parse_args()
    out = arguments.out or arguments.model.with_suffix(".html")
    try:
        page = make_page(arguments.model, arguments.digits, arguments.examples).encode()
        replace_file(out, page)
    except (ValueError, OSError) as error:
        sys.exit(f"explore: {error}")
    print(f"{out}: {len(page) / 1e6:.1f} MB")


def make_page(model: Path, digits: Path, num_examples: int) -> str:
    """The page of the checkpoint `model`, tested on the first examples of the folder `digits`."""
    checkpoint = describe(model)
    num_digits = checkpoint["num_digits"]
    keep_freed_memory()
    protocol = {"seed": 1, "batch_size": 100, "num_digits": num_digits}
    protocol |= {"image_size": checkpoint["arguments"]["image_size"]}
    protocol |= {"max_shift": SHIFT if num_digits > 1 else 0}
    evaluator = load_evaluator(model, digits, torch.device("cpu"), precision="auto", **protocol)
    if not can_be_explored(evaluator.model):
        raise ValueError(f"{model} has no class capsules, or no decoder: nothing to turn")
    predictions = evaluator.evaluate(min(num_examples, len(evaluator.digits)))
    capsules = perturbation.class_capsules(evaluator, len(predictions.labels), MEASURED)
    sweeps, shapes = {}, perturbation.shows_shapes(evaluator.digits)
    for digit, poses in capsules.items():
        print(f"measuring the capsule of {evaluator.digits.classes[digit]}", file=sys.stderr)
        moved = digit, perturbation.two_sigma_values(poses, NUM_VALUES)
        sweeps[digit] = perturbation.measure_sweep(evaluator.model, poses, *moved, shapes=shapes)
    effects = perturbation.named(effect_table(sweeps), evaluator.digits.classes)
    shown = predictions, effects, capsules, model.stem
    return explorer(evaluator, *shown, error=known_error(model))


if __name__ == "__main__":
    main()
