# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Capsules, step by step
#
# *For students and engineers who know convolutions and PyTorch and have an hour.*
#
# A capsule is a group of neurons whose output is a vector. The length of the vector says whether an object is there.
# Its direction says how the object looks. This tutorial builds the capsule network of
# [Sabour, Frosst & Hinton (2017)](https://arxiv.org/abs/1710.09829), trains it for a minute and tests what is claimed
# about it. Each idea comes first as a few plain lines, then in the form of the library, `capsnet`. An `assert` checks
# that both give the same numbers.
#
# | step | question |
# | --- | --- |
# | [1](#1.-What-pooling-throws-away) | What does pooling throw away? |
# | [2](#2.-A-capsule) | What is a capsule? |
# | [3](#3.-Parts-vote-for-wholes) | How do parts vote for wholes, and what is routing? |
# | [4](#4.-The-network) | What does the network look like? |
# | [5](#5.-Two-losses) | What does it minimise? |
# | [6](#6.-Train-for-a-minute) | How well does it read digits after a minute? |
# | [7](#7.-Reconstructions-and-failures) | What does it see, and where does it fail? |
# | [8](#8.-Rotated-and-shifted-digits) | Is it better with rotated digits than a CNN? |
# | [9](#9.-Turn-the-sixteen-numbers) | What do the sixteen numbers of a capsule mean? |
# | [10](#10.-Two-overlapping-digits) | Which of two overlapping digits owns a pixel? |
# | [11](#11.-Does-routing-matter?) | Does routing matter? |
# | [12](#12.-Exercises,-and-where-to-go) | Exercises, and where to go |
#
# Colours mean the same in all figures. **Blue** is the capsule network or the right class, **green** is a CNN,
# **orange** is wrong, grey is a reference. Of two overlapping digits the first is light blue, the second amber.
#
# The notebook runs from top to bottom in less than three minutes on two cores, without a download. Its digits are the
# 1,797 that come with scikit-learn, enlarged to MNIST's format. They show how everything works. The results of record
# are in [reports/laptop/summary.md](../reports/laptop/summary.md).

# %%
import json
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from time import process_time

ROOT = next(at for at in (Path.cwd(), *Path.cwd().parents) if (at / "dvc.yaml").exists())
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

import drawing
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import shapes
import torch
import torch.nn.functional as F
from IPython.display import display
from scipy.stats import t
from sklearn.datasets import load_digits
from torch import nn
from torchvision.transforms import RandomAffine

from capsnet import checkpoint
from capsnet.data.batches import evaluation_batches, seeded_generator, training_batches
from capsnet.data.mnist import Digits, split_validation
from capsnet.data.sources import as_mnist
from capsnet.data.transforms import affine
from capsnet.learning.schedules import one_cycle
from capsnet.losses import margin_loss, reconstruction_loss
from capsnet.metrics import exact_match, overlap, wilson_interval
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.routing import route, route_reference, squash, trace

torch.set_num_threads(1)  # small networks are fastest with one thread
drawing.use_style()

small = load_digits()  # 8x8 pixels from 0 to 16
images = torch.stack([torch.from_numpy(as_mnist(image / 16)) for image in small.images])
labels = torch.from_numpy(small.target)
first, test = Digits(images[:1500], labels[:1500]), Digits(images[1500:], labels[1500:])
train, validation = split_validation(first, 0.1, seeded_generator("validation", 1))
print(f"digits: {len(train)} for training, {len(validation)} for validation, {len(test)} for tests")

# %% [markdown]
# ## 1. What pooling throws away
#
# A face is two eyes, a nose and a mouth *in the right places*. Four detectors look for the four parts at every place of
# a picture. Pooling keeps the largest response of each detector and forgets its place. So everything behind the pooling
# sees no difference between a face and a jumble of its parts.


# %%
def paint(places):
    picture = torch.zeros(48, 48)
    for name, (row, column) in places.items():
        picture[row - 5 : row + 6, column - 5 : column + 6] += parts[name]
    return picture


parts = shapes.face_parts()  # four images of 11x11 pixels
detectors = torch.stack(list(parts.values()))
face = {"left eye": (14, 14), "right eye": (14, 34), "nose": (25, 24), "mouth": (36, 24)}
jumble = {"left eye": (35, 36), "right eye": (24, 12), "nose": (11, 33), "mouth": (9, 12)}
pictures = torch.stack([paint(face), paint(jumble)])
windows = pictures.unfold(1, 11, 1).unfold(2, 11, 1)  # the 11x11 pixels around every place
responses = torch.einsum("nhwrc,prc->nphw", windows, detectors)
pooled = responses.amax(dim=(2, 3))
assert torch.equal(pooled[0], pooled[1])  # the face and the jumble

# In PyTorch the detectors are a convolution, and the largest response is a max-pooling.
convolved = F.conv2d(pictures[:, None], detectors[:, None])
assert torch.allclose(pooled, F.adaptive_max_pool2d(convolved, 1).flatten(1))

# %% [markdown]
# A capsule keeps the place as well. Each part knows where it sits in a face, so it can *vote* for the centre of the
# face: the place of the part minus its offset in a face. If the votes meet, there is a face.

# %%
offsets = torch.tensor(list(face.values())) - torch.tensor([25, 24])  # from the centre of the face
best = responses.flatten(2).argmax(dim=2)  # where each part responds most
places = torch.stack([best // responses.shape[3], best % responses.shape[3]], dim=2) + 5
votes = (places - offsets).float()
spread = votes.var(dim=1, correction=0).sum(dim=1).sqrt()
print(f"spread of the votes: face {spread[0]:.1f} pixels, jumble {spread[1]:.1f} pixels")
drawing.face_and_jumble(pictures, pooled, votes, list(parts))

# %% [markdown]
# Real CNNs pool over small windows, so they lose less. How much they lose can be measured. Take a 6 of two strokes, a
# stem and a bowl, and move the bowl. Two networks read it: a CNN with two poolings, trained in the next cell, and the
# compact capsule network of [pretrained/](../pretrained/mnist.md), which was trained on MNIST. The CNN and, in step 6, a
# capsule network are trained by the same plain loop on the same batches.


# %%
def fit(model, loss_of, *, images, peak, num_digits=1, image_size=28, max_shift=2):
    """Train with Adam and yield the loss of every step; digits are shifted by up to `max_shift` pixels."""
    steps = images // BATCH
    rate = partial(one_cycle, num_steps=steps, peak=peak, warmup=0.1, floor=1e-5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    task = {"num_digits": num_digits, "image_size": image_size, "max_shift": max_shift}
    for batch in training_batches(train, range(steps), seed=1, batch_size=BATCH, **task):
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()


IMAGES, BATCH = 8192, 16
torch.manual_seed(1)
cnn = nn.Sequential(
    nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 10),
)  # fmt: skip
start = process_time()
losses = list(fit(cnn, lambda model, batch: F.cross_entropy(model(batch.images), batch.labels[:, 0]),
                  images=IMAGES, peak=0.002))  # fmt: skip
seconds = process_time() - start
print(f"loss {losses[0]:.2f} to {sum(losses[-64:]) / 64:.2f} in {seconds:.0f} seconds of one core")

# %%
sixes = shapes.sixes()[:, None]  # [3, 1, 28, 28]
published = checkpoint.load(ROOT / "pretrained" / "mnist.safetensors")
with torch.inference_mode():
    lengths, capsules = published(sixes)
    opinions = {"CNN:\nprobability": cnn(sixes).softmax(dim=1), "capsules:\nlength": lengths}
    drawn = published.decoder(capsules, lengths.argmax(dim=1, keepdim=True))[:, 0]
differences = (drawn - sixes[:, 0]).square().sum(dim=(1, 2)) / sixes[:, 0].square().sum(dim=(1, 2))
names = ["a 6", "bowl on top", "bowl apart"]
drawing.opinions(sixes[:, 0], names, opinions, drawn)
for name, difference in zip(names, differences, strict=True):
    print(f"{name}: the reconstruction's squared error is {100 * difference:.0f} % of the ink")

# %% [markdown]
# The simple story does not hold. Neither network reads a 6 when the bowl sits on top. With the strokes apart, the CNN is
# undecided between 0 and 6, and the capsule network reads a 6 with as long a capsule as for the real one. Capsules make
# it *possible* to keep poses; training decides which poses matter. The reconstruction (last row) shows more: the network
# draws a whole 6, which does not fit the picture. So the library checks the length *and* the reconstruction before it
# accepts a picture ([docs/experiments.md](../docs/experiments.md#your-own-pictures)).
#
# ## 2. A capsule
#
# A neuron is a number, a capsule is a vector. Its length stands for a probability, so it must stay below 1. *Squash*
# (Eq. 1 of the paper) shrinks a vector $s$ and keeps its direction: $v = \frac{|s|^2}{1 + |s|^2} \frac{s}{|s|}$. Short
# vectors nearly vanish. Long vectors end just below length 1.


# %%
def plain_squash(s):
    length = s.norm(dim=-1, keepdim=True)
    return length**2 / (1 + length**2) * s / length


vectors = torch.randn(100, 16, generator=torch.manual_seed(1))
assert torch.allclose(plain_squash(vectors), squash(vectors), atol=1e-6)
assert torch.allclose(squash(torch.tensor([3.0, 4.0])).norm(), torch.tensor(25 / 26))
shapes.squash_curve(plain_squash)

# %% [markdown]
# Length is presence, direction is pose. The published network shows both. On the left a 7 fades into a 3: the capsule
# of 7 shrinks and that of 3 grows. On the right the 3 leans: its capsule turns, but hardly changes its length.

# %%
three, seven = (test.images[(test.labels == label).nonzero()[0, 0]] / 255 for label in (3, 7))
share, slant = torch.linspace(0, 1, 41), torch.linspace(-0.5, 0.5, 41)
fading = (1 - share[:, None, None]) * seven + share[:, None, None] * three
leaning = affine(three.expand(41, 28, 28), shear=slant)
with torch.inference_mode():
    appearing = published(fading[:, None]).lengths
    poses = published(leaning[:, None]).capsules[:, 3]
turn = torch.rad2deg(F.cosine_similarity(poses, poses[20:21]).clamp(max=1).acos())
print(f"length while it leans: {poses.norm(dim=1).min():.2f} to {poses.norm(dim=1).max():.2f}")
drawing.presence_and_pose(share, appearing[:, 3], appearing[:, 7], slant, turn,
                          [fading[[0, 14, 26, 40]], leaning[[0, 13, 27, 40]]])  # fmt: skip

# %% [markdown]
# ## 3. Parts vote for wholes
#
# A capsule $u_i$ of a part votes for each whole $j$: $\hat u_{j|i} = u_i W_{ij}$. The learned matrix $W_{ij}$ knows
# where the part sits in the whole. If the whole is there, the votes of its parts agree.
#
# The published network has 16 part capsules. Each has a vote of 16 numbers for every digit. The figure shows the votes
# of a real image in a plane. The direction of the class capsule is to the right, the direction in which the votes
# differ most is upwards.

# %%
with torch.inference_mode():
    found = published.digit.trace(published.lower_capsules(three[None, None]))
longest = found.capsules[-1, 0].norm(dim=1).argsort(descending=True)
panels = []
for digit, color in ((longest[0], drawing.BLUE), (longest[1], drawing.ORANGE)):
    capsule, votes = found.capsules[-1, 0, digit], found.votes[0, :, digit]
    kept = votes.sum(dim=0).norm() / votes.norm(dim=1).sum()  # 1 if all point the same way
    print(f"votes for {digit}: their sum has {100 * kept:.0f} % of the sum of their lengths")
    first = F.normalize(capsule, dim=0)
    rest = votes - (votes @ first)[:, None] * first
    plane = torch.stack([first, torch.linalg.svd(rest, full_matrices=False).Vh[0]], dim=1)
    title = f"votes for {digit}: length {capsule.norm():.2f}"
    panels.append((title, votes @ plane, capsule @ plane, color))
drawing.vote_planes(panels)

# %% [markdown]
# Most votes for the right digit form a cluster and add up to a long capsule. The votes for a wrong digit are a cloud
# around zero and cancel.
#
# ### Routing by hand
#
# A part does not know to which whole it belongs. *Routing by agreement* finds out: each part sends more of its vote to
# the wholes that it agrees with. A toy shows how. Its picture has a face and a car, each of four parts. The pose of a
# part is its place $(x, y)$, written as $(x, y, 1)$ so that a matrix can subtract the part's offset in the whole. Each
# of the eight parts votes for both wholes, because an eye might as well be a lamp. Its vote for the wrong whole may
# point anywhere.

# %%
names = ["left eye", "right eye", "nose", "mouth", "left wheel", "right wheel", "window", "lamp"]
own = [0, 0, 0, 0, 1, 1, 1, 1]  # 0: face, 1: car
wholes = torch.tensor([[0.95, 0.45], [-0.7, 0.75]])  # where they are
in_own = torch.tensor([[-0.3, 0.3], [0.3, 0.3], [0, 0], [0, -0.4],
                       [-0.5, -0.2], [0.5, -0.2], [0, 0.3], [0.7, 0]])  # fmt: skip
place_of_part = wholes[own] + in_own
angle = torch.deg2rad(torch.tensor([70.0, 195, 285, 345, 90, 170, 240, 320]))
stray = torch.stack([angle.cos(), angle.sin()], dim=1)  # votes for the wrong whole
offsets = torch.zeros(8, 2, 2)  # of part i in whole j
offsets[range(8), own] = in_own
offsets[range(8), [1 - whole for whole in own]] = place_of_part - stray
poses = torch.cat([place_of_part, torch.ones(8, 1)], dim=1)[None]  # [1, 8, 3]
matrices = torch.zeros(8, 2, 3, 2)  # W_ij: (x, y, 1) -> (x, y) - offset
matrices[:, :, 0, 0] = matrices[:, :, 1, 1] = 1
matrices[:, :, 2] = -offsets
votes = torch.einsum("bip,ijpd->bijd", poses, matrices)  # Eq. 2
assert torch.allclose(votes[0, range(8), own], wholes[own], atol=1e-6)  # own votes meet

# %% [markdown]
# An iteration has four steps. The couplings $c$ are the softmax of the logits $b$ over the wholes. $s$ is the sum of the
# votes, each times its coupling. $v$ is the squash of $s$. Each logit grows by the agreement of vote and capsule, which
# is their scalar product.

# %%
b, steps = torch.zeros(8, 2), []
for _ in range(3):
    c = b.softmax(dim=1)
    s = (c[:, :, None] * votes[0]).sum(dim=0)
    v = squash(s)
    steps.append((b, c, s, v))
    b = b + (votes[0] * v).sum(dim=2)

logits, couplings, sums, capsules = map(torch.stack, zip(*steps, strict=True))
display(*shapes.routing_tables(names, ["face", "car"], logits, couplings, sums, capsules))
drawing.routing_steps(votes[0], couplings, capsules, ["face", "car"], own)

# %% [markdown]
# Blue arrows are votes of a whole's own parts, orange arrows those of the other's parts. A wider arrow has a larger
# coupling. Own votes meet, the others scatter. So the couplings move to the right whole within three iterations.
#
# ### Procedure 1 of the paper
#
# The same in less than fifteen lines, for a batch of images and any number of capsules. It is the library's
# `route_reference`. `route` is a fast form that does not store the votes. `trace` keeps all iterations.


# %%
def procedure_1(lower, weights, num_iterations):
    """Lower capsules [b, i, p], matrices [i, j, p, d] -> upper capsules [b, j, d]."""
    votes = torch.einsum("bip,ijpd->bijd", lower, weights)
    logits = torch.zeros(votes.shape[:3])
    for iteration in range(num_iterations):
        couplings = logits.softmax(dim=2)
        s = (couplings[..., None] * votes).sum(dim=1)
        capsules = squash(s)
        if iteration < num_iterations - 1:
            logits = logits + (votes * capsules[:, None]).sum(dim=3)
    return capsules


lower = torch.randn(4, 30, 8, generator=torch.manual_seed(1))
weights = 0.2 * torch.randn(30, 10, 8, 16, generator=torch.manual_seed(2))
for r in (1, 2, 3, 5):
    expected = procedure_1(lower, weights, r)
    assert torch.allclose(route_reference(lower, weights, num_iterations=r), expected, atol=1e-6)
    assert torch.allclose(route(lower, weights, num_iterations=r), expected, atol=1e-5)
traced = trace(poses, matrices, num_iterations=3)  # the toy
assert torch.allclose(traced.couplings[:, 0], couplings)
assert torch.allclose(traced.capsules[:, 0], capsules)

# %% [markdown]
# ### What r = 1 means
#
# With one iteration (r = 1) all logits are zero, so every coupling is 1/10 and agreement plays no part. What remains is
# a linear layer and a squash. So r = 1 is the fair control for routing: the same weights, but no agreement. Step 11
# uses it.

# %%
flat = weights.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)  # [i * p, j * d]
linear = (lower.flatten(1) @ flat / 10).unflatten(1, (10, 16))
assert torch.allclose(route_reference(lower, weights, num_iterations=1), squash(linear), atol=1e-6)

# %% [markdown]
# ## 4. The network
#
# The *encoder* of the paper's network has two convolutions and a layer of routing. The 256 channels of the second
# convolution are read as 32 types of part capsules with 8 numbers at each of 6x6 places: 1,152 *primary capsules*. They
# vote for ten *class capsules* of 16 numbers. The longest class capsule is the answer. The *decoder*, three linear
# layers, draws the digit from the capsule of its class. All other capsules are set to zero.

# %%
torch.manual_seed(1)
paper = CapsNet(image_size=28)  # the sizes of the paper
image, label = three[None, None], torch.tensor([[3]])
features = F.relu(paper.convolution(image))
maps = paper.primary.convolution(features)
lower = squash(maps.unflatten(1, (32, 8)).permute(0, 1, 3, 4, 2).flatten(1, 3))  # type, row, column
capsules = procedure_1(lower, paper.digit.weight, 3)
lengths = capsules.norm(dim=2)
masked = F.one_hot(label[:, 0], 10)[..., None] * capsules
drawn = paper.decoder.layers(masked.flatten(1)).view(1, 1, 28, 28)

prediction = paper(image)
assert torch.allclose(prediction.lengths, lengths, atol=1e-5)
assert torch.allclose(prediction.capsules, capsules, atol=1e-5)
assert torch.allclose(paper.decoder(prediction.capsules, label), drawn, atol=1e-5)

layers = [
    ("image", image, nn.Module(), ""),
    ("convolution 9x9, ReLU", features, paper.convolution, ""),
    ("convolution 9x9, stride 2", maps, paper.primary, ""),
    ("primary capsules", lower, nn.Module(), "8 channels of a place are a capsule; squash"),
    ("class capsules", capsules, paper.digit, "votes and routing"),
    ("lengths", lengths, nn.Module(), "the longest is the answer"),
    ("masked capsules", masked, nn.Module(), "all but the true class are zero"),
    ("reconstruction", drawn, paper.decoder, "160 to 512 to 1,024 to 784"),
]
rows = [(name, list(tensor.shape), f"{sum(w.numel() for w in layer.parameters()):,}", note)
        for name, tensor, layer, note in layers]  # fmt: skip
display(pd.DataFrame(rows, columns=["step", "shape", "weights", ""]).set_index("step"))
shapes.network()

# %% [markdown]
# ## 5. Two losses
#
# The *margin loss* (Eq. 4) asks for a length of at least 0.9 for the class that is there and of at most 0.1 for the
# others. It sums over the classes, so two digits in an image are no special case. The *reconstruction loss* is the sum
# of the squared differences of all pixels. Its weight is 0.0005, so that it does not outweigh the margin loss.


# %%
def plain_margin_loss(lengths, targets):
    present = targets * (0.9 - lengths).clamp(min=0) ** 2
    absent = 0.5 * (1 - targets) * (lengths - 0.1).clamp(min=0) ** 2
    return (present + absent).sum(dim=1).mean()


def plain_reconstruction_loss(drawn, sources):
    return ((drawn - sources) ** 2).sum(dim=(1, 2, 3)).mean()


scores = torch.rand(8, 10, generator=torch.manual_seed(1))
targets = F.one_hot(torch.arange(8), 10).float()
assert torch.allclose(plain_margin_loss(scores, targets), margin_loss(scores, targets))
with torch.inference_mode():
    seen = published.decoder(published(image).capsules, label)
assert torch.allclose(plain_reconstruction_loss(seen, image), reconstruction_loss(seen, image))
error = reconstruction_loss(seen, image).item()
print(f"reconstruction loss of the digit below: {error:.1f}, times its weight {0.0005 * error:.4f}")
length = torch.linspace(0, 1, 101)
shapes.losses(length, (0.9 - length).clamp(min=0) ** 2, 0.5 * (length - 0.1).clamp(min=0) ** 2,
               image[0, 0], seen[0, 0])  # fmt: skip

# %% [markdown]
# ## 6. Train for a minute
#
# The network of step 4 with fewer channels (32 instead of 256) and a quarter of the capsules learns the training digits
# within a minute. The loop is `fit` of step 1.


# %%
def capsule_loss(model, batch):
    lengths, capsules = model(batch.images)
    drawn = model.decoder(capsules, batch.labels)
    return margin_loss(lengths, batch.targets) + 0.0005 * reconstruction_loss(drawn, batch.sources)


@torch.inference_mode()
def is_wrong(model, digits, images=None):
    """Whether each of the digits is misread: bool [n]. `images` float [n, h, w] may replace their own."""
    images = digits.images / 255 if images is None else images
    scores = model(images[:, None])
    return getattr(scores, "lengths", scores).argmax(dim=1) != digits.labels


def percent_wrong(wrong):
    value, low, high = wilson_interval(int(wrong.sum()), len(wrong))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def small_capsnet(**options):
    torch.manual_seed(1)
    sizes = {"conv_channels": 32, "primary_types": 8, "decoder_sizes": (256, 512)}
    return CapsNet(image_size=28, **sizes, **options)


capsnet, losses, curve = small_capsnet(), [], []
eighth = IMAGES // BATCH // 8  # steps
start = process_time()
for step, loss in enumerate(fit(capsnet, capsule_loss, images=IMAGES, peak=0.003), start=1):
    losses.append(loss)
    if step % eighth == 0:
        percent = 100 * is_wrong(capsnet, validation).float().mean().item()
        curve.append((step * BATCH, sum(losses[-eighth:]) / eighth, percent))
print(f"{IMAGES:,} digits in {process_time() - start:.0f} seconds of one core")
images_shown, mean_loss, validation_error = zip(*curve, strict=True)
networks = {"CNN": cnn, "CapsNet": capsnet, "published": published}
for name, model in networks.items():
    print(f"{name}: test error {percent_wrong(is_wrong(model, test))}, 95 % interval")
curves = {"loss": mean_loss, "validation error (%)": validation_error}
drawing.curves([("", "digits shown", label, {label: (images_shown, values, drawing.BLUE)})
                for label, values in curves.items()])  # fmt: skip

# %% [markdown]
# The test errors are much higher than the validation errors, because
# [other people wrote the test digits](../docs/recipe.md#the-quick-budget). Only test errors are compared below.
#
# The library's form of the loop is `Trainer`. It also measures errors, saves its state and runs on several GPUs. Four
# steps of both give the same weights.

# %%
from capsnet.data.batches import compose_batch, training_draws
from capsnet.learning.training import Trainer
from capsnet.losses import weighted_losses

plain = small_capsnet()
list(fit(plain, capsule_loss, images=4 * BATCH, peak=0.003))
library = small_capsnet()
trainer = Trainer(
    library, torch.optim.Adam(library.parameters()),
    compose=partial(compose_batch, train, image_size=28),
    compute_losses=lambda prediction, drawn, batch: weighted_losses(
        prediction.lengths, batch.targets, drawn, batch.sources,
        classification=margin_loss, reconstruction_weight=0.0005),
    learning_rate=partial(one_cycle, num_steps=4, peak=0.003, warmup=0.1, floor=1e-5),
)  # fmt: skip
draws = training_draws(train, range(4), seed=1, batch_size=BATCH, num_digits=1, max_shift=2)
list(trainer.fit(draws, num_steps=4, num_intervals=1, validation_batches=lambda last: (),
                 train_eval_batches=lambda last: ()))  # fmt: skip
for one, other in zip(plain.parameters(), library.parameters(), strict=True):
    assert torch.allclose(one, other, atol=1e-5)

# %% [markdown]
# ## 7. Reconstructions and failures
#
# The reconstruction shows what a network keeps of a digit in 16 numbers. CapsNet, the network of step 6, reads the first
# six digits of the figure correctly and misreads the last two. Each is drawn from the capsule of the network's answer.

# %%
digits, rows = test.images[:, None] / 255, {"test digit": test.images / 255}
for name in ("published", "CapsNet"):
    with torch.inference_mode():
        lengths, capsules = networks[name](digits)
        read, decoder = lengths.argmax(dim=1), networks[name].decoder
        rows[name] = decoder(capsules, read[:, None])[:, 0]
        error = reconstruction_loss(decoder(capsules, test.labels[:, None]), digits)
    print(f"{name}: mean squared error of a digit {error:.1f}")
print(f"a blank image: {reconstruction_loss(torch.zeros_like(digits), digits):.1f}")
right = read == test.labels  # by CapsNet
shown = torch.cat([right.nonzero()[:6, 0], (~right).nonzero()[:2, 0]])
titles = [f"{test.labels[n]}" if right[n] else f"{test.labels[n]}\nread {read[n]}" for n in shown]
rows = {name: images[shown] for name, images in rows.items()}
drawing.gallery(rows, titles, 6 * [drawing.BLUE] + 2 * [drawing.ORANGE])

# %% [markdown]
# The published network draws the handwriting of MNIST. So its squared error is larger, although it misreads fewer
# digits.
#
# Another failure is overconfidence. A network knows digits only as bright as those of its training. The published
# network reads the test digits with a quarter of their ink:

# %%
faint = test.images / 255 / 4
with torch.inference_mode():
    longest = published(faint[:, None]).lengths.amax(dim=1)
misread = is_wrong(published, test, faint)
print(f"misread: {percent_wrong(misread)}, with a mean length of {longest[misread].mean():.2f}")

# %% [markdown]
# A length is trained like a probability but is none. The
# [calibration error](../reports/laptop/summary.md) measures the difference.
#
# ## 8. Rotated and shifted digits
#
# The networks trained here saw only upright digits, shifted by up to 2 pixels; the published one also saw digits rotated by
# up to 10 degrees. Now each test digit is rotated by up to 30 degrees and shifted by up to a tenth of the width, as
# torchvision's `RandomAffine(30, (0.1, 0.1))` does.

# %%
torch.manual_seed(1)
moved = torch.stack([RandomAffine(30, (0.1, 0.1))(one[None])[0] for one in test.images])
display(pd.DataFrame({
    title: {name: percent_wrong(is_wrong(model, test, images)) for name, model in networks.items()}
    for title, images in (("upright", None), ("rotated and shifted", moved / 255))
}))  # fmt: skip

# %% [markdown]
# A rotation takes each pixel of the new image from a turned place of the old one. The library's `affine` also shears,
# scales and shifts.


# %%
def rotate(images, degrees):
    """Rotate images [n, h, w] anticlockwise about their centre."""
    angle = torch.deg2rad(torch.tensor(degrees))
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])
    images = images[:, None]
    grid = F.affine_grid(turn.expand(len(images), 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)[:, 0]


upright = test.images / 255
assert torch.allclose(rotate(upright, 25.0), affine(upright, rotation=25.0), atol=1e-5)
degrees, lines = list(range(-60, 61, 15)), {}
for name, color in (("CapsNet", drawing.BLUE), ("CNN", drawing.GREEN)):
    counts = [int(is_wrong(networks[name], test, rotate(upright, float(d))).sum()) for d in degrees]
    value, low, high = zip(*(wilson_interval(count, len(test)) for count in counts), strict=True)
    lines[name] = (degrees, value, color, low, high)
title = f"{len(test)} test digits, 95 % intervals"
drawing.curves([(title, "rotation (degrees)", "error (%)", lines)], 4.2)

# %% [markdown]
# Is the capsule network better with rotated digits? Not here: the bands of both networks overlap, and at 30 degrees both
# misread about half of the digits. One network of each kind and 297 digits cannot decide more. The field disputes the
# claim:
#
# - The paper trains on shifted digits and tests on affNIST: 79 % right for CapsNet, 66 % for its CNN.
# - [Gu & Tresp (2020)](https://arxiv.org/abs/1911.07968) find that routing does not add to it.
#   [Gu, Tresp & Hu (2021)](https://arxiv.org/abs/2103.15459) find that a CNN with the same losses is more robust.
# - In this project the compact CapsNet errs 1.47 points less often than its ConvNet, whose mean error over all rotations
#   is 44 % (95 % interval 0.02 to 2.92, three seeds, equal validation error). After correction for eight comparisons
#   that is within chance: [reports/study/claims.md](../reports/study/claims.md).
#
# ## 9. Turn the sixteen numbers
#
# The decoder draws any capsule. The figure changes one of the 16 numbers of a capsule by -0.25 to +0.25, as Figure 4 of
# the paper does. Each row is a number, the middle column is the digit itself.

# %%
from capsnet.studies.perturbation.measure import sweep


@torch.inference_mode()
def draw_digit(pose, digit=3):
    """Draw capsules [n, 16] of one class: images [n, 28, 28]."""
    capsules = torch.zeros(len(pose), 10, 16)
    capsules[:, digit] = pose
    return published.decoder(capsules, torch.full((len(pose), 1), digit))[:, 0]


with torch.inference_mode():
    pose = published(image).capsules[0, 3]
values = torch.linspace(-0.25, 0.25, 11)
changed = pose + values[:, None] * torch.eye(16)[:, None]  # [number, value, 16]
sheet = draw_digit(changed.flatten(0, 1)).view(16, 11, 28, 28)
assert torch.allclose(sheet, sweep(published, pose[None], 3, values)[0], atol=1e-5)
drawing.grid(sheet, range(1, 17), ["-0.25", *4 * [""], "0", *4 * [""], "+0.25"], "change")

# %% [markdown]
# Some numbers change the thickness, others the slant, the width or the length of a stroke. No part of the loss asks for
# this. The [report](../reports/laptop/runs/mnist/perturbation/overview.png) measures the changes for all digits.
#
# The next cell has sixteen sliders. Where no notebook runs, the figure above shows what each of them does. The
# [explorer page](../pretrained/explorer.html) has the sliders too, with a canvas to draw on. It needs neither Python nor
# a server: download it and open it in a browser.


# %%
def redraw(_=None):
    change = torch.tensor([slider.value for slider in sliders])
    drawn = draw_digit((pose + change)[None])[0].repeat_interleave(10, 0).repeat_interleave(10, 1)
    plt.imsave(png := BytesIO(), drawn, cmap="gray", vmin=0, vmax=1)
    screen.value = png.getvalue()


limits = {"min": -0.5, "max": 0.5, "step": 0.05}
sliders = [ipywidgets.FloatSlider(0.0, **limits, description=f"{n + 1}") for n in range(16)]
screen = ipywidgets.Image(format="png", width=280)
for slider in sliders:
    slider.observe(redraw, "value")
redraw()
columns = [ipywidgets.VBox(sliders[:8]), ipywidgets.VBox(sliders[8:]), screen]
instead = {"text/plain": "Run the notebook to see sixteen sliders and the digit that they draw."}
display(ipywidgets.HBox(columns)._repr_mimebundle_() | instead, raw=True)

# %% [markdown]
# ## 10. Two overlapping digits
#
# The margin loss allows several long capsules, so the same network reads several digits. Each digit is drawn from its
# own capsule. A pixel belongs to the digit whose reconstruction is brighter.
#
# The published network for pairs learned MNIST's handwriting. 4,096 pairs of the training digits adapt it to the digits
# of this notebook.


# %%
@torch.inference_mode()
def pair_errors(model):
    batches = evaluation_batches(test, seed=1, num_examples=500, batch_size=100, **PAIR)
    return torch.cat([~exact_match(model(batch.images).lengths, batch.labels) for batch in batches])


PAIR = {"num_digits": 2, "image_size": 36, "max_shift": 4}
pairs = checkpoint.load(ROOT / "pretrained" / "multimnist.safetensors")
print(f"before: {percent_wrong(pair_errors(pairs))} of 500 pairs with a wrong digit")
pairs.train()
list(fit(pairs, capsule_loss, images=4096, peak=0.002, **PAIR))
pairs.eval()
print(f"after:  {percent_wrong(pair_errors(pairs))}")

# %%
batch = next(evaluation_batches(test, seed=1, num_examples=100, batch_size=100, **PAIR))
with torch.inference_mode():
    lengths, capsules = pairs(batch.images)
    drawn = pairs.decoder(capsules, batch.labels)
read = exact_match(lengths, batch.labels)
brighter = drawn.argmax(dim=1)  # the owner of each pixel
alone = (batch.sources >= 0.5).sum(dim=1) == 1  # covered by exactly one digit
right = (brighter == batch.sources.argmax(dim=1))[alone].float().mean()
print(f"{100 * right:.0f} % of the pixels of exactly one digit have the right owner")
owned = F.one_hot(brighter, 2).movedim(3, 1) * batch.images
shown = read.nonzero()[:6, 0].tolist()
rows = {"true digits": batch.sources, "both\ndrawn": drawn, "owners": owned}
rows = {name: [drawing.overlay(two[n].numpy()) for n in shown] for name, two in rows.items()}
titles = [" and ".join(map(str, batch.labels[n].tolist())) for n in shown]
drawing.gallery({"image": batch.images[shown, 0]} | rows, titles, [drawing.INK] * len(shown))

# %% [markdown]
# ### Routing, iteration by iteration
#
# Each of the 144 primary capsules of this network sees a part of the image. The share of vote $i$ in the sum $s_j$ is
# $c_{ij} \hat u_{j|i} \cdot s_j / |s_j|^2$. Added up over the capsules of a place, the shares show where a digit's
# capsule comes from.

# %%
from capsnet.studies.routing.measure import contributions

n = int(overlap(batch.sources).masked_fill(~read, 1).argmin())  # the pair that overlaps least
both = batch.labels[n].tolist()
with torch.inference_mode():
    found = pairs.digit.trace(pairs.lower_capsules(batch.images[n : n + 1]))
votes, couplings = found.votes[0][:, both], found.couplings[:, 0][..., both]  # [i, k, d], [r, i, k]
sums = torch.einsum("rik,ikd->rkd", couplings, votes)
share = couplings * torch.einsum("ikd,rkd->rik", votes, sums) / sums.square().sum(dim=2)[:, None]
assert torch.allclose(share, contributions(votes, couplings), atol=1e-4)
side = pairs.stem.grid
by_place = share.clamp(min=0).unflatten(1, (-1, side, side)).sum(dim=1)  # [r, row, column, k]
with torch.inference_mode():
    at_each = torch.cat([pairs.decoder(one, batch.labels[n : n + 1]) for one in found.capsules])
lengths = found.capsules[:, 0].norm(dim=2)
drawing.watch_routing(batch.images[n, 0], batch.sources[n], by_place, at_each, lengths, both)

# %% [markdown]
# The votes for the two digits come from different places. From iteration to iteration the right capsules grow longer and
# their reconstructions separate. A wrong capsule can grow too, here that of the 4. The
# [report](../reports/laptop/runs/multimnist/figures/routing.png) measures this on 1,000 pairs.
#
# ## 11. Does routing matter?
#
# The figure of one image proves nothing. The [study](../docs/study.md) trains compact networks on 500,000 pairs, five
# seeds each, and tests them on the same 10,000 pairs. Its records are in this repository. The next cell computes the
# difference of each network from the one with r = 3, paired over the seeds, with a 95 % t interval.

# %%
from capsnet.studies.seeds.measure import difference


def errors(row):
    """Test errors of a row of the study by seed."""
    found = {}
    for seed in range(1, 6):
        run = f"{row}_seed{seed}"
        file = ROOT / "reports" / "study" / "runs" / run / "metrics.json"
        found[seed] = json.loads(file.read_text())["laptop"][run]["test_error"]
    return pd.Series(found, name="test_error").rename_axis("seed")


rows = {"no agreement: r = 1": "compact_r1", "two iterations": "compact_r2", "five iterations": "compact_r5",
        "self-attention": "compact_attention", "no reconstruction": "compact_no_recon",
        "reconstruction x 20": "compact_recon_0_01", "no capsules: ConvNet": "compact_convnet"}  # fmt: skip
base, points = errors("compact_r3"), []
for row in rows.values():
    apart = errors(row) - base
    half = t.ppf(0.975, len(apart) - 1) * apart.std() / len(apart) ** 0.5
    points.append((apart.mean(), apart.mean() - half, apart.mean() + half))
    library = difference(errors(row).reset_index(), base.reset_index())
    assert np.allclose(points[-1], [library[key] for key in ("points", "low", "high")])
ratio = errors("compact_r1").mean() / base.mean()
print(f"mean error over {len(base)} seeds: r = 3 {base.mean():.2f} %, r = 1 {ratio:.2f} times that")
drawing.differences(list(rows), points, 6 * [drawing.BLUE] + [drawing.GREEN])

# %% [markdown]
# Agreement helps: without it (r = 1) the error is higher, and the interval does not contain zero. It helps a little: the
# ratio of the errors is 1.11, in the paper 1.44. Two iterations are worse than three, five are no better. Self-attention
# does as well as routing. One linear layer instead of capsules does worse. Each interval is for one comparison. After
# correction for all 25 comparisons of the study, the differences of r = 1, no reconstruction and the ConvNet remain
# ([reports/study/study.md](../reports/study/study.md)).
#
# The answer depends on the network and on the length of the training. After 52,000 pairs a ConvNet errs 2.11 points less
# often than the paper's CapsNet, and the paper's CNN 4.68 points; with three seeds neither difference is significant after
# the correction. After 25 million pairs CapsNet errs 2.11 points more often with r = 1 than with r = 3, one network each.
# [Paik, Kwak & Kim (2019)](https://arxiv.org/abs/1907.13327) find that routing often does not beat equal couplings. All
# rows, lengths and networks: [docs/study.md](../docs/study.md).
#
# ## 12. Exercises, and where to go
#
# 1. Efficient-CapsNet (Mazzia et al. 2021) squashes differently: lengths become $1 - e^{-|s|}$. Write it in two lines
#    and compare it with the library's.
#
# <details><summary>Solution</summary>
#
# ```python
# from capsnet.nn.squash import exponential_squash
#
# def other_squash(s):
#     length = s.norm(dim=-1, keepdim=True)
#     return (1 - torch.exp(-length)) * s / length
#
# assert torch.allclose(other_squash(vectors), exponential_squash(vectors), atol=1e-6)
# ```
# Short vectors keep their length, since $1 - e^{-x} \approx x$. Eq. 1 makes them much shorter, $x^2$.
#
# </details>
#
# 2. In the toy of step 3, move every part of the face by the same distance. What happens to its capsule? Then move
#    only the nose, far away.
#
# <details><summary>Solution</summary>
#
# ```python
# together, alone = poses.clone(), poses.clone()
# together[0, :4, :2] += 0.3
# alone[0, 2, :2] -= 1.5
# for moved_poses in (poses, together, alone):
#     v = route_reference(moved_poses, matrices, num_iterations=3)[0, 0]
#     print(f"direction {torch.rad2deg(torch.atan2(v[1], v[0])):.0f} degrees, length {v.norm():.2f}")
# ```
# All votes move together, so they still agree: the capsule turns and stays long. The vote of a nose out of place no
# longer agrees: the capsule gets shorter.
#
# </details>
#
# 3. Train the small network with one routing iteration and compare its test error with that of step 6. Is the
#    difference more than chance?
#
# <details><summary>Solution</summary>
#
# ```python
# once = small_capsnet(num_iterations=1)
# list(fit(once, capsule_loss, images=IMAGES, peak=0.003))
# print(percent_wrong(is_wrong(once, test)), "against", percent_wrong(is_wrong(capsnet, test)))
# ```
# The intervals of 297 digits are wide. The study needs five seeds and 10,000 pairs to see the difference.
#
# </details>
#
# 4. Shuffle the primary capsules of an image before routing. Does the answer change? And if the matrices are shuffled
#    alike?
#
# <details><summary>Solution</summary>
#
# ```python
# order = torch.randperm(1152)
# with torch.inference_mode():
#     lower = paper.lower_capsules(image)
#     same = route(lower[:, order], paper.digit.weight[order], num_iterations=3)
#     other = route(lower[:, order], paper.digit.weight, num_iterations=3)
# assert torch.allclose(same, paper(image).capsules, atol=1e-5)
# assert not torch.allclose(other, paper(image).capsules, atol=1e-3)
# ```
# Routing knows no places. All knowledge of places is in the matrices, one for each place.
#
# </details>
#
# 5. Which of the 16 numbers changes the thickness of the 3 most? Measure it by the ink of its reconstruction.
#
# <details><summary>Solution</summary>
#
# ```python
# ink = sheet.sum(dim=(2, 3))  # [number, value]
# most = (ink[:, -1] - ink[:, 0]).abs().argmax()
# print(f"number {most + 1}: ink from {ink[most, 0]:.0f} to {ink[most, -1]:.0f}")
# ```
# `capsnet.studies.perturbation` measures eight properties in this way.
#
# </details>
#
# | to | go to |
# | --- | --- |
# | play with a trained network | [pretrained/explorer.html](../pretrained/explorer.html): download it, open it in a browser |
# | read the code | [routing](../capsnet/nn/routing.py), [CapsNet](../capsnet/nn/capsnet.py), [compact CapsNet](../capsnet/nn/compact.py) |
# | look up a term | [docs/glossary.md](../docs/glossary.md) |
# | train on MNIST, change parameters | [README.md](../README.md) |
# | try a routing of one's own, one's own images | [docs/ten_minutes.md](../docs/ten_minutes.md) |
# | see what was measured | [docs/results.md](../docs/results.md), [docs/study.md](../docs/study.md) |
