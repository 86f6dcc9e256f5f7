"""Stage `perturb@<run>`: what do the numbers of a digit capsule mean? (paper, section 5.1 and
Figure 4)

One number of the right capsule is changed from -range to +range, the other capsules stay zero, and
the decoder draws what the changed capsule stands for. The shape of what it draws is measured for
many test examples of each digit; drawn is the one that changes most like the mean.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from capsnet import figures
from capsnet.device import choose_device
from capsnet.evaluation import Subject, load_subject
from capsnet.figures.effects import effects as draw_effects
from capsnet.params import Params, load_params
from capsnet.runs import params_of, task_of, used_parameters
from capsnet.studies import perturbation
from capsnet.studies.effects import COLUMNS, describe, effect_table
from capsnet.tracking import track
from stages.command import run
from stages.output import write_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="key of `runs` in params.yaml")
    parser.add_argument("--digits", type=Path, required=True, help="folder of the four archives")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to perturb")
    parser.add_argument("--metrics", type=Path, required=True, help="headlines of `evaluate`, JSON")
    parser.add_argument("--effects", type=Path, required=True, help="table to write, CSV")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    arguments = parser.parse_args()
    params = params_of(load_params(), arguments.run)
    with track(
        "perturb",
        arguments.run,
        parameters=used_parameters(params, arguments.run),
        checkpoint=arguments.model,
    ) as tracker:
        perturb(params, arguments, tracker)


def perturb(params: Params, arguments: argparse.Namespace, tracker) -> None:
    task = task_of(params, arguments.run)
    subject = load_subject(
        arguments.model,
        arguments.digits,
        choose_device(),
        precision=params.optimizer.precision,
        seed=params.evaluate.seed,
        batch_size=params.evaluate.batch_size,
        num_digits=task.num_digits,
        image_size=task.image_size,
        max_shift=task.test_shift,
    )
    if subject.model.decoder is None:
        write_csv(arguments.effects, pd.DataFrame(columns=COLUMNS))
        title = f"{arguments.run}: nothing to perturb"
        note = "This network has no decoder, so there is no capsule to draw."
        # A notice, since neither git nor dvc plots takes an empty folder.
        figures.notice(arguments.figures / "overview.png", title=title, note=note)
        print(f"{title}, no decoder")
    else:
        num_examples = task.test_examples or len(subject.digits)
        study_dimensions(subject, num_examples, params, arguments)
    tracker.artifact(arguments.effects)
    tracker.artifact(arguments.figures, folder="perturbation")


def study_dimensions(
    subject: Subject, num_examples: int, params: Params, arguments: argparse.Namespace
) -> None:
    """Measure what each dimension of each digit's capsule does, and draw it."""
    model, folder, limit = subject.model, arguments.figures, params.perturb.range
    wanted = params.chosen_budget.perturb_examples
    capsules = perturbation.right_capsules(subject, num_examples, wanted)
    values = perturbation.sweep_values(limit, params.perturb.step)
    sweeps = {
        digit: perturbation.measure_sweep(model, poses, digit, values)
        for digit, poses in capsules.items()
    }
    effects = effect_table(
        {digit: measured.slopes for digit, measured in sweeps.items()},
        {digit: measured.ink_difference for digit, measured in sweeps.items()},
        limit,
    )
    write_csv(arguments.effects, effects)

    dimensions = effects.drop_duplicates(["digit", "dimension"])
    names = dimensions.groupby("digit")["name"].apply(list)
    for digit, poses in capsules.items():
        images = perturbation.typical_grid(model, poses, digit, sweeps[digit], values)
        path = folder / f"digit_{digit}.png"
        figures.perturbation_grid(images, values.numpy(), names[digit], path, digit=digit)
    error = json.loads(arguments.metrics.read_text())[arguments.run]["error"]
    title = f"{arguments.run} (test error {error:.2f} %)"
    draw_overview(perturbation.clearest_rows(model, capsules, sweeps, effects, values),
                  values.numpy(), folder / "overview.png", title)  # fmt: skip
    told = f"{(dimensions['name'] != 'none').sum()} of {len(dimensions)} dimensions"
    table = effects.assign(label=[describe(row) for _, row in effects.iterrows()])
    title += f": {told} change the shape; coloured where it is visible and beyond chance"
    draw_effects(table, folder / "effects.png", title=title)
    print(f"{arguments.run}: {told} change the shape, figures in {folder}")


def draw_overview(rows, values, path: Path, title: str) -> None:
    """A page with, for each measure, the dimension that changes it most clearly."""
    if rows:
        title += ": the dimension that changes each measure most clearly"
        figures.perturbation_overview(rows, values, path, title=title)
    else:
        note = "No dimension of any digit changes a measure visibly and beyond chance."
        figures.notice(path, title=f"{title}: no dimension has an effect", note=note)


if __name__ == "__main__":
    run(main, "perturb")
