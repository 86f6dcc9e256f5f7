"""The networks: parameter counts of the paper, and common mistakes."""

import inspect
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from capsnet.losses import margin_loss, reconstruction_loss
from capsnet.nn.baseline import BaselineCNN
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.convnet import ConvNet
from capsnet.nn.layers import ClassCapsules, Decoder, PrimaryCapsules
from capsnet.nn.registry import NETWORKS, classification_loss, network_class, network_of
from capsnet.nn.routing import route_reference, squash


def small_capsnet() -> CapsNet:
    torch.manual_seed(0)
    sizes = dict(conv_channels=8, kernel_size=5, primary_types=2, decoder_sizes=[16, 32])
    return CapsNet(image_size=20, **sizes).eval()


@pytest.mark.parametrize(
    ("network", "arguments", "expected"),
    [
        (CapsNet, dict(image_size=28), 8_215_568),
        (CapsNet, dict(image_size=28, decoder_sizes=None), 6_804_224),
        (CapsNet, dict(image_size=28, init="authors"), 8_215_728),
        (CapsNet, dict(image_size=36), 11_361_808),
        (CapsNet, dict(image_size=40, init="authors"), 13_475_808),
        (ConvNet, dict(image_size=36), 11_361_968),
        (BaselineCNN, dict(image_size=28), 35_445_522),
        (BaselineCNN, dict(image_size=36, num_digits=2), 24_563_978),
    ],
)
def test_number_of_parameters(network, arguments, expected):
    with torch.device("meta"):
        model = network(**arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_numbers_of_a_primary_capsule_share_type_and_place():
    """With an identity convolution, channel t * P + p at (y, x) becomes number p of the capsule of
    type t at (y, x), which is capsule t * H * W + y * W + x.
    """
    types, pose, height, width = 2, 4, 3, 5
    layer = PrimaryCapsules(
        in_channels=types * pose, num_types=types, pose_dim=pose, kernel_size=1, stride=1
    )
    torch.nn.init.dirac_(layer.convolution.weight)
    torch.nn.init.zeros_(layer.convolution.bias)
    features = torch.randn(2, types * pose, height, width)
    capsules = layer(features)
    assert capsules.shape == (2, types * height * width, pose)
    for kind, y, x in [(0, 0, 0), (0, 2, 1), (1, 1, 4)]:
        expected = squash(features[:, kind * pose : (kind + 1) * pose, y, x])
        found = capsules[:, kind * height * width + y * width + x]
        torch.testing.assert_close(found, expected)


def test_the_authors_initial_weights_give_the_lengths_of_their_code():
    """On digits like MNIST's. Eight biases of 0.1 have the norm 0.28, squashed 0.075; primary
    capsules of the authors' code have about 0.11. Sixteen have 0.4, squashed 0.14.
    """
    torch.manual_seed(0)
    digits = torch.from_numpy(load_digits().images[:4, None]).float() / 16  # [n, 1, 8, 8]
    images = functional.pad(functional.interpolate(digits, (20, 20), mode="bicubic"), [4] * 4)
    model = CapsNet(image_size=28, init="authors").eval()
    with torch.no_grad():
        primary = model.lower_capsules(images.clamp(0, 1)).norm(dim=-1).mean()
        digit = model(images.clamp(0, 1)).lengths.mean()
    assert 0.10 < primary < 0.13 and 0.14 < digit < 0.19
    biases = [layer.bias for layer in model.modules() if hasattr(layer, "bias")]
    assert all(bias.eq(0.1).all() for bias in biases)
    assert model.digit.weight.abs().max() <= 0.2 and model.convolution.weight.abs().max() <= 0.1


def test_the_control_is_two_convolutions_and_a_linear_layer():
    """Its lengths are the norms of its vectors, not squashed."""
    torch.manual_seed(0)
    sizes = dict(image_size=20, kernel_size=5, conv_channels=4, primary_types=2)
    control = ConvNet(**sizes, decoder_sizes=[8])
    first, second = control.convolutions
    images = torch.rand(3, 1, 20, 20)
    features = functional.relu(functional.conv2d(images, first.weight, first.bias))
    features = functional.relu(functional.conv2d(features, second.weight, second.bias, stride=2))
    vectors = control.linear(features.flatten(1)).view(3, 10, 16)
    lengths, capsules = control(images)
    torch.testing.assert_close(capsules, vectors, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(lengths, vectors.norm(dim=-1), rtol=1e-4, atol=1e-6)
    assert control.decoder(capsules, torch.tensor([[3, 7]] * 3)).shape == (3, 2, 20, 20)


@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name].gives_lengths])
def test_an_image_alone_equals_the_image_in_a_batch(name):
    """Logits shared by the batch, or a squeeze that eats a batch of one, would show here. Lengths
    are those of the capsules: no softmax, no square.
    """
    torch.manual_seed(0)
    few = {"conv_channels": 8} if "conv_channels" in NETWORKS[name].arguments else {}
    model, images = network_class(name)(image_size=28, **few).eval(), torch.rand(5, 1, 28, 28)
    with torch.no_grad():
        together, alone = model(images), model(images[2:3])
    assert alone.lengths.shape == (1, 10) and alone.capsules.shape == (1, 10, 16)
    torch.testing.assert_close(alone.capsules, together.capsules[2:3], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(together.lengths, together.capsules.norm(dim=-1))


@pytest.mark.parametrize("num_iterations", [1, 3])
def test_the_layer_routes_with_its_options(num_iterations):
    """Value and gradient of the reference with the same options; the trace ends in the value."""
    torch.manual_seed(0)
    sizes = dict(num_lower=6, num_upper=3, lower_dim=4, upper_dim=5, weight_std=1.0)
    options = dict(num_iterations=num_iterations, leaky=True, gradient="last")
    layer, lower = ClassCapsules(**sizes, **options, bias=True), torch.randn(2, 6, 4)
    both = layer(lower), route_reference(lower, layer.weight, bias_jd=layer.bias, **options)
    results = [[each, *torch.autograd.grad(each.sum(), layer.weight)] for each in both]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.trace(lower).capsules[-1], both[1], rtol=1e-4, atol=1e-5)


def test_the_decoder_sees_only_the_capsule_of_its_label():
    decoder = Decoder(num_classes=10, pose_dim=4, hidden_sizes=[8], image_size=6)
    capsules = torch.randn(2, 10, 4, requires_grad=True)
    images = decoder(capsules, torch.tensor([[3, 7], [0, 1]]))
    assert images.shape == (2, 2, 6, 6) and images.min() >= 0 and images.max() <= 1
    images[0, 0].sum().backward()
    touched = capsules.grad.abs().sum(dim=2).nonzero().tolist()
    assert touched == [[0, 3]]
    alone = [decoder(capsules[:1], torch.tensor([[digit]])) for digit in (3, 7)]
    torch.testing.assert_close(images[:1], torch.cat(alone, dim=1))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_layer_names_a_device(name):
    """A `.cuda()` or a tensor made on the CPU inside a layer would fail on the meta device. The
    batch of one keeps its axis.
    """
    options = {"init": "authors", "leaky": True} if name == "capsnet" else {}
    with torch.device("meta"):
        model = network_class(name)(image_size=28, **options).eval()
    images = torch.empty(1, 1, 28, 28, device="meta")
    prediction = model(images)
    labels = torch.zeros(1, 1, dtype=torch.int64, device="meta")
    assert prediction.lengths.device.type == "meta" and prediction.lengths.shape == (1, 10)
    if NETWORKS[name].routes:
        assert model.digit.trace(model.lower_capsules(images)).couplings.device.type == "meta"
    if model.decoder is not None:
        assert model.decoder(prediction.capsules, labels).shape == (1, 1, 28, 28)


def test_one_batch_overfits():
    """The network memorizes ten random images: their lengths reach the margins."""
    model = small_capsnet()
    images, labels, targets = torch.rand(10, 1, 20, 20), torch.arange(10)[:, None], torch.eye(10)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(150):
        prediction = model(images)
        reconstructions = model.decoder(prediction.capsules, labels)
        loss = margin_loss(prediction.lengths, targets)
        total = loss + 0.0005 * reconstruction_loss(reconstructions, images)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert (prediction.lengths.argmax(dim=1) == labels.flatten()).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_registry_entry_matches_the_network(name):
    with torch.device("meta"):
        model = network_class(name)(image_size=28)
    found = network_of(model)
    assert found is NETWORKS[name]
    assert found.routes == any(isinstance(layer, ClassCapsules) for layer in model.modules())
    assert found.reconstructs == (model.decoder is not None)
    makers = type(model), getattr(model, "class_layer", type(model))
    known = {name for each in makers for name in inspect.signature(each).parameters}
    assert set(found.arguments) <= known


def test_each_network_has_the_published_loss():
    """For zeros: Eq. 4 gives 0.9 ** 2 for the true class, softmax ln 10, ten sigmoids 10 ln 2."""
    zeros, targets = torch.zeros(1, 10), functional.one_hot(torch.tensor([3]), 10).float()
    expected = {("capsnet", 1): 0.81, ("convnet", 2): 0.81}
    expected |= {("baseline", 1): math.log(10), ("baseline", 2): 10 * math.log(2)}
    for (name, num_digits), value in expected.items():
        loss = classification_loss(name, num_digits=num_digits, positive_margin=0.9)
        assert loss(zeros, targets).item() == pytest.approx(value)


def test_a_kernel_that_does_not_fit_is_named_with_the_largest_that_does():
    """Of 16 px a kernel of 9 px leaves 8. With 8 and 8 px: 16, 9, then one position."""
    words = r"kernel of 9 px meets 8 px \(convolution 2 of 2\); no kernel above 8 px fits"
    with pytest.raises(ValueError, match=words):
        CapsNet(image_size=16)
    CapsNet(image_size=16, kernel_size=8, conv_channels=8, primary_types=1)


def test_kernels_and_strides_of_large_images_of_colour():
    """96 px, a kernel of 9 px each 3 px: 30. A kernel of 5 px each 2 px: 13."""
    sizes = dict(conv_channels=8, primary_types=2, kernel_size=(9, 5), strides=(3, 2))
    model = CapsNet(image_size=96, num_classes=3, num_channels=3, decoder_sizes=[8], **sizes)
    assert model.digit.weight.shape[:2] == (2 * 13**2, 3)
    lengths, capsules = model(torch.rand(2, 3, 96, 96))
    assert lengths.shape == (2, 3)
    assert model.decoder(capsules, torch.tensor([[0], [2]])).shape == (2, 1, 3, 96, 96)
