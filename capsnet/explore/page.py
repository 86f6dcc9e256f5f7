"""A trained network as one HTML file: draw a digit, see it routed, change its capsules.

The file holds markup, style, scripts, test digits and the weights in 8 bits, and needs no server.
"""

import base64
import html
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from capsnet.data.registry import worded
from capsnet.explore.weights import Quantised, fit_into, packed_size, with_weights
from capsnet.learning.evaluation import Evaluator, Predictions, decode
from capsnet.nn.compact import fold_norms
from capsnet.nn.layers import grid_size, receptive_field
from capsnet.nn.registry import network_of

MOST_BYTES = 8_000_000  # of the page
OF_EACH = 10  # test examples of each class
FAILURES = 60  # at most
COMPARED = 500  # test examples on which the page's network is compared
FEW = 100_000  # weights of a layer that stays in float32: errors of the first layer weigh most
WEB = Path(__file__).parent / "web"
SCRIPTS = ("network", "handwriting", "pictures", "paper", "knobs", "app")
ENGINE = ("network", "worker")  # scripts of the worker


def no_explorer(name: str, why: str = "This network has nothing to turn.") -> str:
    """The page of a network that has no class capsules or no decoder, or that is too large."""
    return f"<!doctype html><title>{html.escape(name)}</title><p>{html.escape(why)}"


def can_be_explored(model: nn.Module) -> bool:
    """Whether the network has class capsules and a decoder."""
    return network_of(model).routes and model.decoder is not None


def explorer(
    evaluator: Evaluator,
    predictions: Predictions,
    two_sigma: pd.DataFrame,
    capsules: dict[int, Tensor],
    name: str,
    *,
    error: object = None,
) -> str:
    """Return the page of a network as HTML, with test examples.

    two_sigma: effects of each dimension within two standard deviations (study `perturbation`).
    capsules: those behind it, by class [n, d]. error: prints as "test error 0.59 %". The network
    passes `can_be_explored`. Raises ValueError if it is too large.
    """
    model, noun = fold_norms(evaluator.model), evaluator.digits.about.noun
    examples, images = chosen_examples(evaluator, predictions)
    state = model.state_dict()
    large = {key: each for key, each in state.items() if each.ndim > 1 and each.numel() > FEW}
    arrays = {
        key: each.float().cpu().numpy().ravel() for key, each in state.items() if key not in large
    }
    texts = {path.stem: path.read_text() for path in WEB.iterdir()}
    small = sum(map(len, texts.values())) + images.size
    small += sum(5 * each.size for each in arrays.values())
    weights = fit_into(large, (MOST_BYTES - small) * 3 // 4)
    difference = compare(evaluator, with_weights(model, weights))
    arrays |= {f"{key}.step": each.steps for key, each in weights.items()}
    arrays |= {key: each.whole.ravel() for key, each in weights.items()}
    arrays["examples"] = images.ravel()
    header = {
        "sizes": sizes_of(evaluator),
        "layers": layers_of(model),
        "examples": examples,
        "meanings": meanings(two_sigma, capsules, evaluator.digits.classes),
        "difference": difference,
        "error": str(error or ""),
        "classes": evaluator.digits.classes,
        "noun": noun,
        "about": about(weights, difference),
    }
    parts = {
        "title": html.escape(f"capsnet: {name}"),
        "heading": html.escape(f"Touch it: the capsule network {name}"),
        "style": texts["style"],
        "payload": base64.b64encode(zlib.compress(pack(header, arrays), 9)).decode(),
        "engine": "\n".join(texts[script] for script in ENGINE),
        "script": "\n".join(texts[script] for script in SCRIPTS),
    }
    page = worded(texts["index"], noun)
    for key, part in parts.items():
        page = page.replace("{{" + key + "}}", part)
    return page


def pack(header: dict, arrays: dict[str, np.ndarray]) -> bytes:
    """Length of the header, header as JSON, arrays; float32 first, so that they are aligned."""
    order = sorted(arrays, key=lambda key: arrays[key].dtype != np.float32)
    listed, offset = [], 0
    for key in order:
        kind, count = str(arrays[key].dtype), arrays[key].size
        listed.append({"name": key, "kind": kind, "offset": offset, "count": count})
        offset += arrays[key].nbytes
    text = json.dumps(header | {"arrays": listed}).encode()
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + b"".join(arrays[key].tobytes() for key in order)


def sizes_of(evaluator: Evaluator) -> dict[str, int | bool | str]:
    model, data = evaluator.model, evaluator.digits.about
    _, num_classes, lower_dim, upper_dim = model.digit.weight.shape
    width, stride = receptive_field(model.layers)
    return {
        "size": evaluator.image_size,
        "digits": evaluator.num_digits,
        "shift": evaluator.max_shift,
        "channels": evaluator.digits.num_channels,
        **{name: getattr(data, name) for name in ("box", "centre", "combine")},  # of a drawing
        "grid": grid_size(evaluator.image_size, model.layers),
        "width": width,  # pixels that a place of the grid sees
        "stride": stride,
        "lowerDim": lower_dim,
        "upperDim": upper_dim,
        "classes": num_classes,
        "iterations": model.digit.num_iterations,
        "leaky": model.digit.leaky,
    }


def layers_of(model: nn.Module) -> list[dict[str, object]]:
    """The convolutions; each but the last is followed by ReLU."""
    names = {module: name for name, module in model.named_modules()}
    return [
        {
            "name": names[layer],
            "outputs": layer.out_channels,
            "kernel": layer.kernel_size[0],
            "stride": layer.stride[0],
            "depthwise": layer.groups > 1,
            "relu": layer is not model.layers[-1],
        }
        for layer in model.layers
    ]


def chosen_examples(
    evaluator: Evaluator, predictions: Predictions
) -> tuple[list[dict], np.ndarray]:
    """Ten examples of each class, then failures: group and labels; images uint8 [n, c, h, w]."""
    classes, noun = evaluator.digits.classes, evaluator.digits.about.noun
    first, wrong = predictions.labels[:, 0], (~predictions.correct).nonzero()[:, 0]
    groups = {
        f"{noun.capitalize()} {name}": (first == digit).nonzero()[:OF_EACH, 0].tolist()
        for digit, name in enumerate(classes)
    }
    shown = f"{min(FAILURES, len(wrong))} of {len(wrong):,} among {len(first):,} test examples"
    groups[f"Read wrongly, {shown}"] = wrong[:FAILURES].tolist()
    numbers = [(group, place) for group, found in groups.items() for place in found]
    listed = [{"group": group, "labels": predictions.labels[n].tolist()} for group, n in numbers]
    batches = evaluator.regenerate([place for _, place in numbers])
    images = torch.cat([batches[place].images for _, place in numbers])
    return listed, np.rint(255 * images.float().cpu().numpy()).astype(np.uint8)


def meanings(
    two_sigma: pd.DataFrame, capsules: dict[int, Tensor], classes: Sequence[str]
) -> list[list[dict]]:
    """For each digit and dimension: name of the effect, mean and two standard deviations."""
    rows = two_sigma[["digit", "dimension", "name"]].itertuples(index=False)
    names = {(digit, dimension): name for digit, dimension, name in rows}
    width, found = next(iter(capsules.values())).shape[1], []
    for digit, of_class in enumerate(classes):
        poses = capsules.get(digit, torch.zeros(1, width)).float().cpu()
        spread = poses.std(dim=0) if len(poses) > 1 else torch.zeros(width)
        called = [names.get((of_class, dimension), "none") for dimension in range(width)]
        columns = zip(called, poses.mean(dim=0).tolist(), (2 * spread).tolist(), strict=True)
        found.append(
            [dict(name=n, mean=round(mean, 4), two_sigma=round(two, 4)) for n, mean, two in columns]
        )
    return found


def compare(evaluator: Evaluator, shown: nn.Module) -> dict[str, float]:
    """Difference of the network that is shown from the original, in float32: the largest of a
    capsule's `length`, the mean of a `pixel` in reconstructions of true digits, and the
    `decisions`, examples with another prediction, of `examples`.
    """
    count, found, drawn = min(COMPARED, len(evaluator.digits)), [], []
    for model in (evaluator.model.float().eval(), shown.float().eval()):
        exact = evaluator._replace(model=model, dtype=torch.float32)
        found.append(exact.evaluate(count, num_kept=count))
        device = next(model.parameters()).device
        drawn.append(decode(model, found[-1].capsules.to(device), found[-1].labels.to(device)))
    first, second = found
    return {
        "length": float((first.lengths - second.lengths).abs().max()),
        "pixel": float((drawn[0] - drawn[1]).abs().flatten(1).mean(dim=1).mean()),
        "decisions": int((first.predicted != second.predicted).any(dim=1).sum()),
        "examples": count,
    }


def about(weights: dict[str, Quantised], difference: dict[str, float]) -> str:
    """The footnote."""
    bits = 8 * packed_size(weights) / max(1, sum(each.whole.size for each in weights.values()))
    return (
        "The weights of the large layers are stored as 8-bit integers, compressed to "
        f"{bits:.1f} bits each. On {difference['examples']} test examples, capsule lengths differ "
        f"from the original network's by at most {difference['length']:.3f} and reconstructions "
        f"by {difference['pixel']:.4f} a pixel on average; {difference['decisions']} predictions "
        "differ."
    )
