import pytest
import torch
from torch import nn

from cxrtool.models.network import Network, count_parameters, dense_head, is_finite, set_mode


class Toy(Network):
    """A body with a normalisation, a head with another."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.neck = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 3)

    def features(self, images):
        return self.norm(self.conv(images))

    def classify(self, features):
        return self.out(self.neck(features.mean((2, 3))))

    def head_modules(self):
        return [self.neck, self.out]


def test_forward_is_both_halves():
    network, images = Toy().eval(), torch.rand(2, 1, 8, 8)
    assert torch.equal(network(images), network.classify(network.features(images)))


def test_a_frozen_body_leaves_the_head_to_be_trained():
    network = Toy()
    network.freeze_backbone()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"neck.weight", "neck.bias", "out.weight", "out.bias"}
    assert count_parameters(network) == {"parameters": 40 + 8 + 8 + 15, "trained_parameters": 8 + 15}


def test_only_the_body_s_normalisations_are_held_still():
    network = Toy()
    assert network.backbone_norms() == [network.norm]
    before = network.norm.running_mean.clone(), network.neck.running_mean.clone()
    set_mode(network, training=True, frozen_norms=True)
    assert network.training
    network(torch.rand(4, 1, 8, 8))
    assert torch.equal(network.norm.running_mean, before[0])
    assert not torch.equal(network.neck.running_mean, before[1])
    set_mode(network, training=True, frozen_norms=False)
    assert network.norm.training
    set_mode(network, training=False, frozen_norms=False)
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["conv.weight", "norm.running_var"])
def test_is_finite_looks_at_weights_and_running_statistics(name, value):
    network = Toy()
    assert is_finite(network)
    network.state_dict()[name].view(-1)[0] = value
    assert not is_finite(network)


def test_the_dense_head_drops_hidden_values_in_training_alone():
    torch.manual_seed(0)
    head, features = dense_head(16, 64, 3, 0.5), torch.rand(5, 16)
    assert head.eval()(features).shape == (5, 3)
    assert torch.equal(head(features), head(features))
    head.train()
    assert not torch.equal(head(features), head(features))
