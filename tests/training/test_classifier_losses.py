import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from cxrtool.models.registry import BUILT_IN, loss_of
from cxrtool.training.classifier_losses import LOSSES, class_weights, margin


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=3).filter(lambda labels: set(labels) == {0, 1, 2}))
def test_balanced_weights_are_scikit_learn_s_and_average_to_one(labels):
    labels = np.array(labels)
    weights = class_weights(labels, 3, "balanced").numpy()
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1.0, rel=1e-6)


def test_no_weights_are_no_weights():
    assert class_weights(np.array([0, 1, 1]), 2, "none") is None
    assert torch.isfinite(class_weights(np.array([0, 0]), 2, "balanced")).all()


def test_margin_is_that_of_the_paper_by_hand():
    lengths = torch.tensor([[0.95, 0.05], [0.5, 0.4], [0.2, 0.7]], dtype=torch.float64)
    target = torch.tensor([0, 0, 0])
    # Long enough and short enough costs nothing; else what is missing to 0.9, and half of what is over 0.1, squared.
    by_hand = [0.0, 0.4**2 + 0.5 * 0.3**2, 0.7**2 + 0.5 * 0.6**2]
    assert float(margin(lengths.log(), target, None)) == pytest.approx(sum(by_hand) / 3, rel=1e-5)
    other = margin(lengths.log(), torch.tensor([0, 1, 1]), torch.tensor([1.0, 4.0]))
    by_hand = [0.0, 4 * (0.5**2 + 0.5 * 0.4**2), 4 * (0.2**2 + 0.5 * 0.1**2)]
    assert float(other) == pytest.approx(sum(by_hand) / 3, rel=1e-5)


def test_every_network_of_ours_is_trained_by_a_loss_that_there_is():
    assert {own.loss for own in BUILT_IN.values()} <= set(LOSSES)
    assert (loss_of("covid-caps"), loss_of("pepx"), loss_of("resnet50")) == ("margin", "cross-entropy", "cross-entropy")
