"""The rules of fusion against a second reading of the papers, in exact arithmetic on whole grids."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from cxrtool.errors import InputError
from cxrtool.evaluation.fusion import (
    conflict_mass,
    is_conflict,
    joint_decision,
    prior_correct,
    twins,
)
from cxrtool.evaluation.fusion_rules import RULES, joint_nested, joint_product

HALF = Fraction(1, 2)
STEPS = [Fraction(i, 40) for i in range(41)]
GRID = list(itertools.product(STEPS, STEPS))
A, B = (np.array([float(pair[i]) for pair in GRID]) for i in (0, 1))


def product_by_hand(a, b):
    joint = {("n", "n"): (1 - a) * (1 - b), ("p", "n"): a * (1 - b), ("p", "c"): a * b}
    conflict = (1 - a) * b
    if conflict == 1:
        return [HALF, Fraction(0), HALF]
    return [joint[key] / (1 - conflict) for key in (("n", "n"), ("p", "n"), ("p", "c"))]


def nested_by_hand(a, b):
    if b > a:
        a = b = (a + b) / 2
    return [1 - a, a - b, b]


BY_HAND = {"product": product_by_hand, "nested": nested_by_hand}


@pytest.mark.parametrize("rule", RULES)
def test_probabilities_on_a_full_grid(rule):
    found = RULES[rule](A, B)
    expected = np.array([[float(value) for value in BY_HAND[rule](a, b)] for a, b in GRID])
    assert np.allclose(found, expected, rtol=0, atol=1e-12)
    assert np.allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)


def test_the_paper_table_and_its_ties_on_a_full_grid():
    table = {(False, False): 0, (True, False): 1, (True, True): 2}
    decided = joint_decision(A, B, "product")
    conflicts = 0
    for (a, b), found in zip(GRID, decided, strict=True):
        opinion = (a >= HALF, b >= HALF)
        if opinion == (False, True):
            conflicts += 1
            assert found == (2 if a + b >= 1 else 0), (a, b)
        else:
            assert found == table[opinion], (a, b)
    assert conflicts == is_conflict(A, B).sum() == 20 * 21


@pytest.mark.parametrize("rule", RULES)
def test_a_decision_is_the_likeliest_class_and_the_graver_of_equals(rule):
    for (a, b), found in zip(GRID, joint_decision(A, B, rule), strict=True):
        exact = BY_HAND[rule](a, b)
        assert found == max(k for k in range(3) if exact[k] == max(exact)), (a, b)


def test_ties_that_floats_miss_are_ties():
    a = np.array([0.3, 0.1, 0.43, 1e-9])
    assert joint_decision(a, 1 - a, "product").tolist() == [2, 2, 2, 2]
    assert joint_decision(np.array([0.3, 0.1]), np.array([0.7, 0.9]), "nested").tolist() == [2, 2]


def test_both_rules_agree_on_conflict_and_differ_elsewhere():
    conflict = is_conflict(A, B)
    product, nested = joint_decision(A, B, "product"), joint_decision(A, B, "nested")
    assert (product[conflict] == nested[conflict]).all()
    assert joint_decision(np.array([0.8]), np.array([0.45]), "product") == [1]
    assert joint_decision(np.array([0.8]), np.array([0.45]), "nested") == [2]


def test_corners():
    a, b = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    assert joint_product(a, b).tolist() == [[1, 0, 0], [0.5, 0, 0.5], [0, 1, 0], [0, 0, 1]]
    assert joint_nested(a, b).tolist() == [[1, 0, 0], [0.5, 0, 0.5], [0, 1, 0], [0, 0, 1]]
    assert conflict_mass(a, b).tolist() == [0, 1, 0, 0]


def test_a_corrected_prior_is_bayes_on_counts():
    # Of 400 images 100 are covid; 100 of each were trained on. A sign that 60 of 100 covid and 30 of 300 others show.
    balanced, true = 60 / (60 + 10), 60 / (60 + 30)
    found = prior_correct(np.array([balanced]), np.array([0.25]), np.array([0.5]))
    assert found.item() == pytest.approx(true)
    p = np.full(41, 0.3)
    b = np.array([float(step) for step in STEPS])
    assert np.allclose(prior_correct(b, p, p), b, atol=1e-15)
    assert prior_correct(np.array([0.0, 1.0]), p[:2], p[:2] / 2).tolist() == [0.0, 1.0]
    assert np.allclose(prior_correct(prior_correct(b, p, p / 2), p / 2, p), b, atol=1e-12)


def every_output(parts):
    """All ways of four probabilities that are multiples of one part and add up to one."""
    return [c for c in itertools.product(range(parts + 1), repeat=4) if sum(c) == parts]


P_PLUS, P_MINUS, N_PLUS, N_MINUS = range(4)


def sdnet_by_hand(theta, psi):
    """The three rules as the paper states them; the first index wins in an argmax."""
    answers = {theta.index(max(theta)), psi.index(max(psi))}
    if answers == {N_PLUS, N_MINUS}:
        return "N"
    if answers == {P_PLUS, P_MINUS}:
        return "P"
    negative = max(theta[N_PLUS], theta[N_MINUS], psi[N_PLUS], psi[N_MINUS])
    positive = max(theta[P_PLUS], theta[P_MINUS], psi[P_PLUS], psi[P_MINUS])
    return "N" if negative > positive else "P"


def test_twins_decide_as_the_paper_does_on_a_full_grid():
    pairs = list(itertools.product(every_output(6), repeat=2))
    scores, decided = twins(np.array(pairs) / 6, [0, 0, 1, 1], 2, positive=0)
    expected = np.array([sdnet_by_hand(list(theta), list(psi)) == "N" for theta, psi in pairs])
    assert len(pairs) == 84**2
    assert (decided.astype(bool) == expected).all()
    # The score and the decision never contradict one another.
    assert ((scores[:, 0] >= 0.5) == (decided == 0)).all()
    highest = [max(max(pair[0][:2]), max(pair[1][:2])) for pair in pairs]
    other = [max(max(pair[0][2:]), max(pair[1][2:])) for pair in pairs]
    assert np.allclose(scores[:, 0], np.array(highest) / (np.array(highest) + other))


def test_the_order_of_classes_and_of_twins_does_not_matter():
    pairs = np.array(list(itertools.product(every_output(4), repeat=2))) / 4
    scores, decided = twins(pairs, [0, 0, 1, 1], 2, positive=0)
    turned = twins(pairs[:, ::-1, [2, 0, 3, 1]], [0, 1, 0, 1], 2, positive=1)
    assert (turned[0][:, ::-1] == scores).all()
    assert (1 - turned[1] == decided).all()


def test_more_labels_and_their_ties():
    outputs = np.zeros((4, 3, 9))
    # The classes are 0@0 0@1 0@2 1@0 …; each image's twins say something in one or more of them.
    outputs[0, 0, 4] = 0.9
    outputs[1, 0, 1], outputs[1, 2, 8] = 0.6, 0.6
    outputs[2, 0, 1], outputs[2, 1, 3] = 0.6, 0.6
    outputs[3, 0, 1], outputs[3, 1, 3], outputs[3, 2, 8] = 0.5, 0.5, 0.7
    scores, decided = twins(outputs, [0, 0, 0, 1, 1, 1, 2, 2, 2], 3, positive=2)
    assert decided.tolist() == [1, 2, 0, 2]
    assert scores[1].tolist() == [0.5, 0, 0.5]
    assert np.allclose(scores.sum(axis=1), 1)


def test_a_label_without_classes_is_refused():
    with pytest.raises(InputError, match="expected classes of all 3 labels, found those of 2"):
        twins(np.zeros((1, 2, 4)), [0, 0, 1, 1], 3, positive=0)
