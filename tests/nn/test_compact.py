"""The compact networks and Efficient-CapsNet: sizes, arithmetic, batch normalization."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from capsnet.nn.compact import CompactAttention, CompactCapsNet, CompactConvNet, Stem, fold_norms
from capsnet.nn.efficient import EfficientCapsNet
from capsnet.nn.layers import receptive_field, self_attention
from capsnet.nn.squash import exponential_squash, squash

STEM = dict(channels=[4, 8], kernels=[3, 3], strides=[2, 1], primary_kernel=2)


def small(network=CompactCapsNet, **sizes):
    torch.manual_seed(0)
    sizes = dict(image_size=13, stem=STEM, primary_dim=4, decoder_sizes=[16]) | sizes
    return network(**sizes)


@pytest.mark.parametrize(("image_size", "published"), [(28, 161_824), (36, 154_656)])
def test_efficient_capsnet_has_the_published_number_of_parameters(image_size, published):
    """Mazzia et al. 2021, Tables 2 and 4: 161,824 on MNIST and 154 K on MultiMNIST, without the
    decoder; both have 16 primary capsules.
    """
    model = EfficientCapsNet(image_size=image_size, decoder_sizes=None)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert model.digit.weight.shape == (16, 10, 8, 16)


def test_self_attention_sums_the_products_of_all_votes():
    """Eq. 4 to 6 of Mazzia et al. 2021, with the [i, i] matrix of products that the code avoids."""
    torch.manual_seed(0)
    lower, weight, prior = torch.randn(2, 5, 3), torch.randn(5, 4, 3, 6), torch.randn(5, 4)
    votes = torch.einsum("bip,ijpd->bjid", lower, weight)
    products = votes @ votes.transpose(-1, -2) / math.sqrt(6)
    coupling = products.sum(dim=-1).softmax(dim=1) + prior.T
    expected = squash((coupling.unsqueeze(-1) * votes).sum(dim=2))
    torch.testing.assert_close(self_attention(lower, weight, prior), expected)


def test_the_exponential_squash():
    """(3, 4) is 5 long and keeps its direction; zero has a value and a gradient."""
    s = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    found = exponential_squash(s)
    torch.testing.assert_close(found[0], torch.tensor([0.6, 0.8]) * (1 - math.exp(-5)))
    found.sum().backward()
    assert found[1].tolist() == [0, 0] and s.grad[1].isfinite().all()


def test_each_network_has_its_own_squash():
    """Eq. 1 for both kinds of compact capsules, that of its authors for Efficient-CapsNet."""
    published = EfficientCapsNet(image_size=28, decoder_sizes=None)
    cases = [(small(), squash), (small(CompactAttention), squash), (published, exponential_squash)]
    for model, expected in cases:
        size = 28 if model is published else 13
        images = torch.rand(2, 1, size, size)
        lower = model.eval().lower_capsules(images)
        torch.testing.assert_close(lower, expected(model.stem(images)))
    weights = published.digit.weight, published.digit.prior
    upper = self_attention(lower, *weights, squash=exponential_squash)
    torch.testing.assert_close(published(images).capsules, upper)


def test_the_stem_is_relu_then_batch_normalization():
    """13 px: a kernel of 3 with stride 2 leaves 6, one of 3 leaves 4, one of 2 leaves 3. A position
    sees 3 + 2 x 2 + 2 x 1 = 9 px, its neighbour is 2 px away.
    """
    torch.manual_seed(0)
    stem = Stem(image_size=13, pose_dim=4, **STEM)
    first, second, primary = stem.layers
    assert stem.num_capsules == 2 * 9 and receptive_field(stem.layers) == (9, 2)
    images = torch.rand(5, 1, 13, 13)
    features = functional.relu(functional.conv2d(images, first.weight, first.bias, stride=2))
    features = functional.batch_norm(features, None, None, training=True)
    features = functional.relu(functional.conv2d(features, second.weight, second.bias))
    features = functional.batch_norm(features, None, None, training=True)
    features = functional.conv2d(features, primary.weight, primary.bias, groups=8)
    capsule = stem(images)[:, 9 + 3 * 1 + 2]  # of the second type, in row 1 and column 2
    torch.testing.assert_close(capsule, features[:, 4:, 1, 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [CompactCapsNet, CompactConvNet, CompactAttention])
def test_folded_norms_compute_the_same(network):
    model = small(network).train()
    for _ in range(5):
        model(torch.rand(16, 1, 13, 13))
    images, folded = torch.rand(4, 1, 13, 13), fold_norms(model)
    torch.testing.assert_close(folded(images), model.eval()(images), rtol=1e-4, atol=1e-5)
    assert not any("running_mean" in name for name in folded.state_dict())


def test_the_control_has_relu_and_a_linear_layer():
    control, routed = small(CompactConvNet).eval(), small().eval()
    images = torch.rand(3, 1, 13, 13)
    features = functional.relu(control.stem(images)).flatten(1)
    vectors = control.digit[1](features).view(3, 10, 16)
    torch.testing.assert_close(control(images).capsules, vectors)
    assert control.digit[1].weight.numel() == routed.digit.weight.numel()


def test_an_image_alone_is_read_with_the_running_statistics():
    """In evaluation mode an image does not depend on its batch, in training mode it does."""
    model, images = small(), torch.rand(5, 1, 13, 13)
    alone = [copy.deepcopy(model).train(mode)(images[:2]).lengths for mode in (True, False)]
    together = [copy.deepcopy(model).train(mode)(images).lengths[:2] for mode in (True, False)]
    assert not torch.allclose(alone[0], together[0])
    torch.testing.assert_close(alone[1], together[1])
