"""A trained network -> one HTML file in which anybody can draw, look and turn the knobs.

Everything is in the file: markup, style, scripts, the network's weights in 8 bits, test digits. It
asks for nothing else, so it opens from a disk without a network.
"""

import base64
import copy
import html
import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from capsnet.data.archives import NUM_CLASSES
from capsnet.explore.weights import as_shown, bits_of, fit_into
from capsnet.learning.evaluation import Evaluator, Predictions, decode
from capsnet.nn.registry import network_of

MOST_BYTES = 8_000_000  # of the page
OF_EACH = 10  # test examples of each class
FAILURES = 60  # at most
COMPARED = 500  # test examples behind the error that the page states
FEW = 100_000  # weights of a layer: so few stay in float32, the first layer's errors weigh most
WEB = Path(__file__).parent / "web"
SCRIPTS = ("network", "handwriting", "pictures", "paper", "knobs", "app")
ENGINE = ("network", "worker")  # what runs apart from the page


class Difference(NamedTuple):
    """Of the page's network from the real one, over COMPARED test examples."""

    length: float  # largest, of any capsule
    pixel: float  # mean, of reconstructions
    decisions: int  # examples read otherwise


def no_explorer(name: str, why: str = "This network has nothing to turn.") -> str:
    """In its place, for a network without class capsules or decoder, or too large for a page."""
    return f"<!doctype html><title>{html.escape(name)}</title><p>{html.escape(why)}"


def can_be_explored(model: nn.Module) -> bool:
    return network_of(model).routes and model.decoder is not None


def explorer(
    evaluator: Evaluator,
    predictions: Predictions,
    two_sigma: pd.DataFrame,
    capsules: dict[int, Tensor],
    name: str,
    error: float | None = None,
) -> str:
    """Return the page of a network as HTML, with test examples.

    two_sigma: what moving each dimension by two standard deviations does (`perturbation`).
    capsules: by class the capsules [n, d] that were measured. error: test error in percent, if it
    is known. Raises ValueError for a network without class capsules or decoder.
    """
    model = evaluator.model
    if not can_be_explored(model):
        raise ValueError(f"{name} has no class capsules, or no decoder: there is nothing to turn")
    examples, images = chosen_examples(evaluator, predictions)
    whole = {
        key: each
        for key, each in model.state_dict().items()
        if each.ndim > 1 and each.numel() > FEW
    }
    rest = {
        key: each.detach().float().cpu().numpy().ravel()
        for key, each in model.state_dict().items()
        if key not in whole
    }
    texts = {path.stem: path.read_text() for path in WEB.iterdir()}
    small = sum(map(len, texts.values())) + images.size  # generously
    small += sum(5 * each.size for each in rest.values())
    _, weights = fit_into(whole, (MOST_BYTES - small) * 3 // 4)
    difference = compare(evaluator, as_shown(model, weights))
    arrays = dict(rest)
    arrays |= {f"{key}.step": each.steps for key, each in weights.items()}
    arrays |= {key: each.whole.ravel() for key, each in weights.items()}
    arrays["examples"] = images.ravel()
    told = {
        "sizes": sizes_of(evaluator),
        "examples": examples,
        "meanings": meanings(two_sigma, capsules),
        "difference": difference._asdict(),
        "about": about(name, predictions, error, bits_of(weights), difference),
    }
    parts = {
        "title": html.escape(f"capsnet: {name}"),
        "heading": html.escape(f"Touch it: the capsule network {name}"),
        "style": texts["style"],
        "payload": base64.b64encode(zlib.compress(pack(told, arrays), 9)).decode(),
        "engine": "\n".join(texts[script] for script in ENGINE),
        "script": "\n".join(texts[script] for script in SCRIPTS),
    }
    page = texts["index"]
    for key, part in parts.items():
        page = page.replace("{{" + key + "}}", part)
    return page


def pack(told: dict, arrays: dict[str, np.ndarray]) -> bytes:
    """The length of a JSON text, the text, the arrays; floats first, for they begin at fours."""
    order = sorted(arrays, key=lambda key: arrays[key].dtype != np.float32)
    listed, offset = [], 0
    for key in order:
        array = arrays[key]
        kind = {"float32": "float32", "int8": "int8", "uint8": "uint8"}[str(array.dtype)]
        listed.append({"name": key, "kind": kind, "offset": offset, "count": array.size})
        offset += array.nbytes
    text = json.dumps(told | {"arrays": listed}).encode()
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + b"".join(arrays[key].tobytes() for key in order)


def sizes_of(evaluator: Evaluator) -> dict[str, int | bool]:
    model = evaluator.model
    num_lower, num_classes, lower_dim, upper_dim = model.digit.weight.shape
    types, kernel = model.primary.num_types, model.convolution.kernel_size[0]
    return {
        "size": evaluator.image_size,
        "digits": evaluator.num_digits,
        "shift": evaluator.max_shift,
        "channels": model.convolution.out_channels,
        "kernel": kernel,
        "types": types,
        "grid": round((num_lower / types) ** 0.5),
        "lowerDim": lower_dim,
        "upperDim": upper_dim,
        "classes": num_classes,
        "iterations": model.digit.num_iterations,
        "leaky": model.digit.leaky,
    }


def chosen_examples(
    evaluator: Evaluator, predictions: Predictions
) -> tuple[list[dict], np.ndarray]:
    """Ten of each class, then failures: what they are, and their images uint8 [n, h, w]."""
    first, wrong = predictions.labels[:, 0], (~predictions.correct).nonzero()[:, 0]
    groups = {
        f"Digit {digit}": (first == digit).nonzero()[:OF_EACH, 0].tolist()
        for digit in range(NUM_CLASSES)
    }
    shown = f"{min(FAILURES, len(wrong))} of {len(wrong):,} among {len(first):,}"
    groups[f"Read wrongly, {shown}"] = wrong[:FAILURES].tolist()
    places = {place for numbers in groups.values() for place in numbers}
    images, begin = {}, 0
    for batch in evaluator.batches(len(first)):
        for place in places & set(range(begin, begin + len(batch))):
            pixels = batch.images[place - begin, 0].float().cpu().numpy()
            images[place] = np.rint(255 * pixels).astype(np.uint8)
        begin += len(batch)
    numbers = [(group, place) for group, found in groups.items() for place in found]
    told = [{"group": group, "labels": predictions.labels[n].tolist()} for group, n in numbers]
    return told, np.stack([images[place] for _, place in numbers])


def meanings(two_sigma: pd.DataFrame, capsules: dict[int, Tensor]) -> list[list[dict]]:
    """For each digit and dimension: what it changes, its mean, two standard deviations."""
    names = two_sigma.drop_duplicates(["digit", "dimension"]).set_index(["digit", "dimension"])[
        "name"
    ]
    found = []
    for digit in range(NUM_CLASSES):
        poses = capsules.get(digit)
        width = next(iter(capsules.values())).shape[1]
        poses = torch.zeros(1, width) if poses is None else poses.float().cpu()
        spread = poses.std(dim=0) if len(poses) > 1 else torch.zeros(width)
        found.append(
            [
                {
                    "name": str(names.get((digit, dimension), "none")),
                    "mean": round(mean, 4),
                    "two_sigma": round(2 * deviation, 4),
                }
                for dimension, (mean, deviation) in enumerate(
                    zip(poses.mean(dim=0).tolist(), spread.tolist(), strict=True)
                )
            ]
        )
    return found


@torch.inference_mode()
def compare(evaluator: Evaluator, state: dict[str, Tensor]) -> Difference:
    """In float32, as the page computes. Reconstructions are of the capsules of the true digits."""
    model = evaluator.model.float()
    shown: nn.Module = copy.deepcopy(model)
    shown.load_state_dict(state)
    lengths, pixels, decisions = 0.0, [], 0
    for batch in evaluator.batches(COMPARED):
        one, other = (each.eval()(batch.images) for each in (model, shown))
        drawn = [
            decode(each, prediction.capsules, batch.labels)
            for each, prediction in ((model, one), (shown, other))
        ]
        count = batch.labels.shape[1]
        read = [each.lengths.topk(count).indices.sort().values for each in (one, other)]
        lengths = max(lengths, float((one.lengths - other.lengths).abs().max()))
        pixels.append((drawn[0] - drawn[1]).abs().flatten(1).mean(dim=1))
        decisions += int((read[0] != read[1]).any(dim=1).sum())
    return Difference(lengths, float(torch.cat(pixels).mean()), decisions)


def about(
    name: str, predictions: Predictions, error: float | None, bits: float, difference: Difference
) -> str:
    of = "the test examples"
    if error is None:
        error = 100 * (1 - predictions.correct.double().mean().item())
        of = f"{len(predictions.correct):,} test examples"
    return (
        f"{name}: wrong on {error:.2f} % of {of}. The weights of its large layers are here as "
        f"whole numbers of at most 8 bits, packed into {bits:.1f} each: on {COMPARED} test "
        f"examples the lengths of capsules differ from the real network's by at most "
        f"{difference.length:.3f}, its reconstructions by {difference.pixel:.4f} a pixel on "
        f"average, and {difference.decisions} are read otherwise."
    )
