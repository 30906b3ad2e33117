import cv2
import numpy as np
import pytest
import torch

from cxrtool.errors import InputError
from cxrtool.models.rib_autoencoder import CHANNELS, OURS, PUBLISHED, RibAutoencoder, kernels_of
from cxrtool.models.ribs import NETWORKS


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RibAutoencoder().eval()


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(CHANNELS[i + 1], CHANNELS[i], 5, 5) for i in range(3)]
    return {OURS.format(i): rng.normal(0, 0.1, shape).astype(np.float32) for i, shape in enumerate(shapes)}


def test_it_has_the_published_number_of_weights(network):
    assert sum(values.numel() for values in network.parameters()) == 64_400
    assert list(network.state_dict()) == [OURS.format(i) for i in range(3)]


def test_the_shape_stays_and_no_value_is_negative(network):
    answer = network(torch.rand(2, 1, 64, 64))
    assert answer.shape == (2, 1, 64, 64)
    assert answer.min() == 0


def test_widening_is_tensorflow_s_transposed_convolution(network):
    """Of which the definition is: the gradient of the SAME convolution of stride 2 with the same kernel."""
    kernel = network.encoder[0].weight.detach().double()
    values = torch.rand(1, 16, 5, 6, dtype=torch.float64)
    wide = torch.zeros(1, 1, 10, 12, dtype=torch.float64, requires_grad=True)
    # SAME with stride 2 on an even side pads 1 before and 2 behind.
    padded = torch.nn.functional.pad(wide, (1, 2, 1, 2))
    (torch.nn.functional.conv2d(padded, kernel, stride=2) * values).sum().backward()
    from cxrtool.models.rib_autoencoder import _widen

    assert torch.allclose(_widen(values, kernel), wide.grad, atol=1e-12)


def test_pooling_before_the_rectifier_is_pooling_behind_it(network):
    images = torch.rand(1, 1, 32, 32)
    values = images
    for layer in network.encoder:
        values = torch.nn.functional.max_pool2d(torch.relu(layer(values)), 2)
    kept = []
    network.encoder[2].register_forward_hook(lambda module, given, answer: kept.append(answer))
    network(images)
    assert torch.equal(torch.relu(torch.nn.functional.max_pool2d(kept[0], 2)), values)


def test_it_is_shown_negatives_of_1024_pixels():
    form = NETWORKS["autoencoder"].form
    assert (form.size, form.fit, form.invert) == (1024, "pad", True)


def test_kernels_by_either_name_are_the_same():
    ours = arrays()
    theirs = {PUBLISHED.format(i): ours[OURS.format(i)].transpose(2, 3, 1, 0) for i in range(3)}
    found = kernels_of({**theirs, "Variable": np.float32(1), "encoder/layer/0/W/Adam": np.zeros(3)}, "file")
    assert found.keys() == ours.keys()
    assert all((found[name] == ours[name]).all() for name in ours)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({OURS.format(1): None}, "found no 'encoder.1.weight'"),
        ({OURS.format(2): np.zeros((64, 32, 3, 3), np.float32)}, r"expected floats of shape \(64, 32, 5, 5\)"),
        ({OURS.format(0): np.zeros((16, 1, 5, 5), np.int64)}, "found int64"),
        ({OURS.format(0): np.full((16, 1, 5, 5), np.nan, np.float32)}, "not finite"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(change, text):
    changed = {name: values for name, values in {**arrays(), **change}.items() if values is not None}
    with pytest.raises(InputError, match=text):
        kernels_of(changed, "weights.npz")


def test_with_the_published_weights_it_gives_the_published_picture(root):
    reference = root.parent / "shared" / "reference" / "rib_suppression"
    weights = root.parent / "shared" / "weights" / "rib_suppression_published.npz"
    if not reference.is_dir() or not weights.is_file():
        pytest.skip(f"no published weights and pictures at {reference}")
    network = RibAutoencoder().eval()
    with np.load(weights) as content:
        state = kernels_of(dict(content), "published")
    network.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    given, wanted = (cv2.imread(str(reference / f"{name}.png"), cv2.IMREAD_GRAYSCALE) for name in ("input", "output"))
    with torch.inference_mode():
        answer = network(torch.from_numpy(given.astype(np.float32) / 255)[None, None])[0, 0].numpy()
    assert np.corrcoef(answer.ravel(), wanted.ravel())[0, 1] >= 0.9999
    assert np.corrcoef(given.ravel(), wanted.ravel())[0, 1] < 0.999
