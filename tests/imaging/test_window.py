import numpy as np
import pytest

from cxrtool.imaging.window import FUNCTIONS, apply_window, quantise


def test_a_linear_window_of_width_w_shows_w_values():
    # PS3.3 C.11.2.1.2.1, note 3: width 4096 and centre 2048 show 0 to 4095 exactly.
    shown = apply_window(np.arange(4096.0), 2048, 4096)
    assert shown[0] == 0
    assert shown[-1] == 1
    assert np.allclose(np.diff(shown), 1 / 4095)


def test_a_linear_window_of_one_value_is_a_threshold():
    assert apply_window(np.array([9.0, 10.0, 11.0]), 10, 1).tolist() == [0, 1, 1]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_windows_rise_from_nothing_to_all(function):
    shown = apply_window(np.linspace(-1e6, 1e6, 4001), 100, 50, function)
    assert np.all(np.diff(shown) >= 0)
    assert shown[0] < 1e-6
    assert shown[-1] > 1 - 1e-6


@pytest.mark.parametrize(("function", "width"), [("LINEAR", 0.5), ("LINEAR_EXACT", 0), ("SIGMOID", -1), ("CUBIC", 9)])
def test_what_is_no_window_is_refused(function, width):
    with pytest.raises(ValueError, match="window"):
        apply_window(np.zeros(1), 0, width, function)


@pytest.mark.parametrize("bits", [8, 16])
def test_inversion_and_rounding_commute(bits):
    full = 2**bits - 1
    brightness = np.arange(0, 2 * full + 1) / (2 * full)  # every half and every whole value
    assert np.array_equal(quantise(brightness, bits), quantise(1 - brightness, bits, inverted=True))
    assert quantise(brightness, bits).max() == full
