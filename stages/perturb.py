"""Stage `perturb@<run>`: what do the numbers of a digit capsule mean? (paper, section 5.1 and
Figure 4)

One number of the right capsule is changed from -range to +range, the other capsules stay zero, and
the decoder draws what the changed capsule stands for. The shape of what it draws is measured for
many test examples of each digit; drawn is the one that changes most like the mean. That range goes
beyond what any digit has, so the same is done within two standard deviations of the digit's own.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import pandas as pd

from capsnet.config import RunConfig, load, resolve
from capsnet.explore.page import can_be_explored, explorer, no_explorer
from capsnet.learning.device import choose_device
from capsnet.learning.evaluation import Subject
from capsnet.plots.pictures import notice
from capsnet.studies.perturbation import measure as perturbation
from capsnet.studies.perturbation.draw import effects as draw_effects
from capsnet.studies.perturbation.draw import perturbation_grid, perturbation_overview
from capsnet.studies.perturbation.effects import COLUMNS, describe, effect_table
from capsnet.tracking import track
from stages.command import parser_of_a_run, run
from stages.evaluator import subject_of
from stages.output import write_csv, write_text

TABLES = ("perturbation.csv", "usual.csv")  # within the paper's range, and within a usual one
FIGURES = "perturbation"


def main() -> None:
    parser = parser_of_a_run(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to perturb")
    words = "folder with metrics.json of `evaluate`, for the tables and figures"
    parser.add_argument("--out", type=Path, required=True, help=words)
    parser.add_argument("--explorer", type=Path, required=True, help="web page to write, HTML")
    arguments = parser.parse_args()
    config = resolve(load(override=arguments.override, run=arguments.run), arguments.run)
    with track(
        "perturb",
        arguments.run,
        parameters=config.model_dump(),
        checkpoint=arguments.model,
    ) as tracker:
        perturb(config, arguments, tracker)


def perturb(config: RunConfig, arguments: argparse.Namespace, tracker) -> None:
    subject = subject_of(config, arguments.model, arguments.digits, choose_device())
    out = arguments.out
    if subject.model.decoder is None:
        for table in TABLES:
            write_csv(out / table, pd.DataFrame(columns=COLUMNS))
        title = f"{arguments.run}: nothing to perturb"
        note = "This network has no decoder, so there is no capsule to draw."
        # A notice, since neither git nor dvc plots takes an empty folder.
        notice(out / FIGURES / "overview.png", title=title, note=note)
        write_text(arguments.explorer, no_explorer(arguments.run))
        print(f"{title}, no decoder")
    else:
        num_examples = config.task.test_examples or len(subject.digits)
        study_dimensions(subject, num_examples, config, arguments)
    for table in TABLES:
        tracker.artifact(out / table)
    tracker.artifact(out / FIGURES, folder="perturbation")
    tracker.artifact(arguments.explorer)


def study_dimensions(
    subject: Subject, num_examples: int, config: RunConfig, arguments: argparse.Namespace
) -> None:
    """Measure what each dimension of each digit's capsule does, and draw it: over the range of the
    paper's Figure 4, and over what is usual for a digit, two standard deviations either way.
    """
    model, out, folder = subject.model, arguments.out, arguments.out / FIGURES
    within_paper, within_usual = (out / table for table in TABLES)
    wanted = config.perturb_examples
    capsules = perturbation.right_capsules(subject, num_examples, wanted)
    values = perturbation.sweep_values(config.perturb.range, config.perturb.step)
    error = json.loads((out / "metrics.json").read_text())[arguments.run]["error"]
    title = f"{arguments.run} (test error {error:.2f} %)"

    usual = {
        digit: perturbation.usual_values(poses, len(values)) for digit, poses in capsules.items()
    }
    deviations = perturbation.sweep_values(2, 4 / (len(values) - 1)).numpy()
    added = "standard deviations of the digit's capsules"
    draw = partial(perturbation_overview, values=deviations, added=added)
    ends = ("usual_overview.png", "usual_effects.png")
    paths = [folder / end for end in ends]
    _, meant = study_sweep(model, capsules, usual, within_usual, draw, paths, title)
    page = no_explorer(arguments.run)
    if can_be_explored(model):
        outcome = subject.judge(min(num_examples, config.study_examples))
        try:
            page = explorer(subject, outcome, meant, capsules, arguments.run, error)
        except ValueError as problem:  # too large for a page: its tables and figures are not
            page = no_explorer(arguments.run, str(problem))
    write_text(arguments.explorer, page)

    draw = partial(perturbation_overview, values=values.numpy())
    alike = dict.fromkeys(capsules, values)
    paths = [folder / "overview.png", folder / "effects.png"]
    sweeps, effects = study_sweep(model, capsules, alike, within_paper, draw, paths, title)
    dimensions = effects.drop_duplicates(["digit", "dimension"])
    names = dimensions.groupby("digit")["name"].apply(list)
    for digit, poses in capsules.items():
        images = perturbation.typical_grid(model, poses, digit, sweeps[digit], values)
        path, reach = folder / f"digit_{digit}.png", usual[digit][:, -1].tolist()
        perturbation_grid(images, values.numpy(), names[digit], path, digit=digit, usual=reach)
    print(f"{arguments.run}: figures in {folder}")


def study_sweep(model, capsules, values, table: Path, draw, paths: list[Path], title: str):
    """The sweeps over the `values` of each digit, their effects (also a table), and two figures."""
    sweeps = {
        digit: perturbation.measure_sweep(model, poses, digit, values[digit])
        for digit, poses in capsules.items()
    }
    effects = effect_table(sweeps)
    write_csv(table, effects)
    rows = perturbation.clearest_rows(model, capsules, sweeps, effects, values)
    draw_overview(rows, draw, paths[0], title)
    dimensions = effects.drop_duplicates(["digit", "dimension"])
    told = f"{(dimensions['name'] != 'none').sum()} of {len(dimensions)} dimensions"
    labels = effects.assign(label=[describe(row) for _, row in effects.iterrows()])
    title += f": {told} change the shape; coloured where it is visible and beyond chance"
    draw_effects(labels, paths[1], title=title)
    return sweeps, effects


def draw_overview(rows, draw, path: Path, title: str) -> None:
    """A page with, for each measure, the dimension that changes it most clearly."""
    if rows:
        title += ": the dimension that changes each measure most clearly"
        draw(rows, path=path, title=title)
    else:
        note = "No dimension of any digit changes a measure visibly and beyond chance."
        notice(path, title=f"{title}: no dimension has an effect", note=note)


if __name__ == "__main__":
    run(main, "perturb")
