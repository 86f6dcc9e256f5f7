"""Write a trained network of the study in 16 bits, with a card, for people who do not train one.

`pretrained/<task>.safetensors` is the file and `pretrained/<task>.md` its card. The error on the
card is that of the written file on the whole test.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m stages.publish` in the repository root")

import json

from capsnet import checkpoint
from capsnet.config import RunConfig
from capsnet.files import write_text
from capsnet.learning.device import choose_device
from capsnet.nn.registry import NETWORKS
from capsnet.paths import RunPaths, pretrained
from capsnet.studies.errors.measure import headline
from stages.build import make_evaluator
from stages.command import configuration, run, run_parser


def main() -> None:
    config, paths = configuration(run_parser(__spec__.name, __doc__).parse_args())
    out = pretrained(config.task.num_digits)
    description, tensors = checkpoint.read(paths.model)
    half = {name: each.half() if each.ndim > 1 else each for name, each in tensors.items()}
    checkpoint.write(out, description, half)
    evaluator = make_evaluator(config, out, paths.digits, choose_device())
    count = config.task.test_examples or len(evaluator.digits)
    numbers = headline(evaluator.evaluate(count))
    checkpoint.write(out, description | {"test_error": round(numbers["test_error"], 4)}, half)
    write_text(out.with_suffix(".md"), card(config, paths, numbers, count))
    print(
        f"{out.name}: {out.stat().st_size / 1e6:.1f} MB, test error {numbers['test_error']:.2f} %"
    )


def card(config: RunConfig, paths: RunPaths, numbers: dict[str, float], count: int) -> str:
    """The card of a published network, as Markdown."""
    record = json.loads((paths.reports / "record.json").read_text())
    single = config.task.num_digits == 1
    examples, wanted = ("digits", "one digit") if single else ("pairs", "two overlapping digits")
    turned = "10 degrees and scales beyond 10 %" if config.data.augment else "a few degrees"
    interval = f"{numbers['test_error_low']:.2f} to {numbers['test_error_high']:.2f}"
    shown = f"{numbers['test_error']:.2f} % ({interval})"
    rows = {
        "network": NETWORKS[config.network].title,
        "test error": f"{shown} of {count:,} {examples}, 95 % interval",
        "trained on": f"MNIST, {record['examples']:,} {examples} shown, shifts of up to "
        f"{config.task.training_shift} px{', rotated, stretched and bent' * config.data.augment}",
        "time": f"{record['seconds'] / 60:.0f} minutes, {record['processor']}, "
        f"{record['precision']}",
        "command": f"`dvc --cd study repro train@{config.name}`",
        "commit": f"{record['commit']}, {record['date']}",
        "weights": "float16, batch normalization in float32",
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"# {config.task.name}\n\n| | |\n| --- | --- |\n{lines}\n\n"
        f"The network reads {wanted} as MNIST has them: handwritten, upright, on "
        f"{config.task.image_size}x{config.task.image_size} pixels. It knows no letters and no "
        f"other alphabets. It was not trained for rotations beyond {turned}. "
        f"{'' if single else 'Where there is only one digit it names a second one. '}"
        "A rejected picture may still be a digit.\n"
    )


if __name__ == "__main__":
    run(main, "publish")
