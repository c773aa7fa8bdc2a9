"""The laws of label bits, with values worked out by hand and against scipy and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from subclass_kd import SubclassHierarchy
from subclass_kd.information import label_bits, symmetric_label_bits

PAIRS = SubclassHierarchy.from_parent([0, 1, 0, 1])


def random_predictions(parent, samples, seed):
    """Logits (N, K) that know something, and labels (N,) with uneven frequencies."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(parent), size=samples, p=generator.dirichlet(np.full(len(parent), 2.0)))
    logits = generator.normal(size=(samples, len(parent))) + 1.5 * np.eye(len(parent))[labels]
    return torch.tensor(logits), torch.tensor(labels)


@pytest.mark.parametrize(
    ("subclasses", "accuracy", "bits"),
    [
        # log2 5 + 0.73 log2 0.73 + 0.27 log2(0.27 / 4) = 2.321928 - 0.331443 - 1.050022; Müller et al. print 0.94
        (5, 0.73, 0.9404634587),
        # 1 + 0.8782 log2 0.8782 + 0.1218 log2 0.1218; Sajedi et al. print 0.4656, which is s = 2 at P = 0.87824
        (2, 0.8782, 0.4654871277),
        (2, 0.5, 0.0),
        (4, 0.25, 0.0),
        (3, 0.0, math.log2(3 / 2)),
        (2, 0.0, 1.0),
        (7, 1.0, math.log2(7)),
        (1, 0.0, 0.0),
        (1, 0.4, 0.0),
        (1, 1.0, 0.0),
    ],
)
def test_symmetric_bits_worked_out_by_hand(subclasses, accuracy, bits):
    assert symmetric_label_bits(subclasses, accuracy) == pytest.approx(bits, abs=1e-10)


@pytest.mark.parametrize(("subclasses", "accuracy", "printed"), [(5, 0.73, 0.9404), (2, 0.8782, 0.4656)])
def test_symmetric_bits_are_those_printed_by_the_papers_but_for_rounding(subclasses, accuracy, printed):
    assert symmetric_label_bits(subclasses, accuracy) == pytest.approx(printed, abs=1.5e-4)


@settings(deadline=None)
@given(subclasses=st.integers(2, 50), accuracy=st.floats(0, 1))
def test_symmetric_bits_are_those_of_the_channel_that_they_stand_for(subclasses, accuracy):
    # I(S; S_hat) = H(S_hat) - H(S_hat | S) with S even: log2 s less the entropy of one row
    row = [accuracy] + [(1 - accuracy) / (subclasses - 1)] * (subclasses - 1)
    bits = symmetric_label_bits(subclasses, accuracy)
    assert bits == pytest.approx(math.log2(subclasses) - entropy(row, base=2), abs=1e-9)
    assert 0 <= bits <= math.log2(subclasses)


@settings(deadline=None)
@given(subclasses=st.integers(2, 20), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_symmetric_bits_grow_with_accuracy_above_chance(subclasses, shares):
    low, high = sorted(1 / subclasses + share * (1 - 1 / subclasses) for share in shares)
    assert symmetric_label_bits(subclasses, low) <= symmetric_label_bits(subclasses, min(1.0, high)) + 1e-12


@pytest.mark.parametrize(
    ("subclasses", "accuracy", "found"),
    [
        (0, 0.5, "found 0 subclasses"),
        (2, 73.0, "found accuracy 73.0"),
        (2, -0.1, "-0.1"),
        (2, math.nan, "accuracy nan"),
    ],
)
def test_subclasses_below_1_and_accuracy_outside_0_to_1_are_refused(subclasses, accuracy, found):
    with pytest.raises(ValueError, match=found):
        symmetric_label_bits(subclasses, accuracy)


def test_label_bits_worked_out_by_hand():
    # class 0 = subclasses 0 and 2, two samples each; class 1 = subclass 1 alone, four samples: it has no bits to give
    hierarchy = SubclassHierarchy.from_parent([0, 1, 0])
    labels = torch.tensor([0, 0, 2, 2, 1, 1, 1, 1])
    sure = [
        [0.3, 0.6, 0.1],
        [0.1, 0.6, 0.3],
        [0.1, 0.6, 0.3],
        [0.1, 0.6, 0.3],
    ]  # within class 0: (3/4, 1/4) or reversed
    found = label_bits(torch.tensor(sure + [[0.2, 0.5, 0.3]] * 4, dtype=torch.float64).log(), labels, hierarchy)
    rest = 1 - 0.8112781245  # 1 - H(1/4, 3/4)
    assert found.accuracy == 7 / 8
    assert found.symmetric == pytest.approx(rest / 2, abs=1e-10)  # P_0 = 3/4 of 2 subclasses, in half of the samples
    assert found.soft == pytest.approx(rest / 2, abs=1e-10)  # KL((3/4, 1/4) || (1/2, 1/2)) each
    assert found.ceiling == pytest.approx(1 / 2, abs=1e-12)
    # confusion [[1, 1], [0, 2]] / 4: H(S) + H(S_hat) - H(S, S_hat) = 1 + 0.811278 - 1.5
    assert found.mutual_information == pytest.approx((0.8112781245 - 0.5) / 2, abs=1e-10)


@settings(deadline=None, max_examples=25)
@given(
    parent=st.sampled_from([[0, 1, 0, 1], [0, 0, 0, 1, 1], [2, 1, 0, 1, 2, 2, 0, 1], [0, 1]]),
    samples=st.integers(1, 300),
    seed=st.integers(0, 2**31),
)
def test_label_bits_are_those_of_scipy_and_scikit_learn(parent, samples, seed):
    logits, labels = random_predictions(parent, samples, seed)
    found = label_bits(logits, labels, SubclassHierarchy.from_parent(parent))

    scores, truth, of = logits.numpy(), labels.numpy(), np.array(parent)
    expected = dict.fromkeys(found._fields, 0.0)
    for c in set(of[truth].tolist()):
        rows, columns = np.flatnonzero(of[truth] == c), np.flatnonzero(of == c)
        share = len(rows) / samples
        guess = columns[scores[rows][:, columns].argmax(-1)]
        right = (guess == truth[rows]).mean()
        expected["accuracy"] += share * right
        expected["symmetric"] += share * symmetric_label_bits(len(columns), right)
        expected["mutual_information"] += share * mutual_info_score(truth[rows], guess) / math.log(2)
        present, counts = np.unique(truth[rows], return_counts=True)
        expected["ceiling"] += share * entropy(counts, base=2)
        posterior = np.exp(scores[rows][:, present])  # scipy normalises both
        expected["soft"] += sum(entropy(row, counts, base=2) for row in posterior) / samples
    assert found._asdict() == pytest.approx(expected, abs=1e-9)
    assert 0 <= found.mutual_information <= found.ceiling + 1e-12


def test_a_perfect_and_sure_teacher_reaches_the_ceiling_by_every_estimator():
    labels = torch.arange(4).repeat(5)
    found = label_bits(1e3 * torch.eye(4)[labels], labels, PAIRS)
    assert found == pytest.approx((1, 1, 1, 1, 1), abs=1e-12)


def test_a_teacher_that_says_the_label_frequencies_gives_no_bits():
    labels = torch.tensor([0, 0, 0, 2, 1, 1, 3, 3, 3, 3])
    frequencies = torch.tensor([3 / 4, 2 / 6, 1 / 4, 4 / 6], dtype=torch.float64)
    found = label_bits(frequencies.log().expand(10, 4), labels, PAIRS)
    assert found.soft == pytest.approx(0, abs=1e-12)
    assert found.mutual_information == pytest.approx(0, abs=1e-12)
    assert found.accuracy == pytest.approx(7 / 10)


def test_only_differences_within_the_true_class_count():
    logits, labels = random_predictions(PAIRS.parent_indices, 100, seed=1)
    outside = PAIRS.parent != PAIRS.class_labels(labels).unsqueeze(-1)
    expected = pytest.approx(label_bits(logits, labels, PAIRS), abs=1e-12)
    assert label_bits(logits.log_softmax(-1), labels, PAIRS) == expected
    assert label_bits(logits + torch.randn(100, 1, dtype=torch.float64), labels, PAIRS) == expected
    assert label_bits(logits.masked_fill(outside, 50.0), labels, PAIRS) == expected
    assert label_bits(logits.masked_fill(outside, -math.inf), labels, PAIRS) == expected


def test_label_bits_take_any_float_and_integer_dtype_and_leave_the_graph_alone():
    logits, labels = random_predictions(PAIRS.parent_indices, 50, seed=2)
    half = logits.bfloat16().requires_grad_()
    assert label_bits(half, labels.to(torch.uint8), PAIRS) == label_bits(half.detach().double(), labels, PAIRS)


def test_a_subclass_without_a_sample_is_left_out_of_the_soft_estimate():
    # subclass 2 has no sample: of class 0 only 0 and 3 are left, to which (1/5, 3/5, 1/5 elsewhere) gives (1/4, 3/4)
    hierarchy = SubclassHierarchy.from_parent([0, 1, 0, 0])
    probabilities = torch.tensor([[0.1, 0.5, 0.1, 0.3]] * 2, dtype=torch.float64)
    found = label_bits(probabilities.log(), torch.tensor([0, 3]), hierarchy)
    assert found.soft == pytest.approx(1 - 0.8112781245, abs=1e-10)
    assert found.symmetric == pytest.approx(symmetric_label_bits(3, 0.5))  # the hierarchy still counts three


def test_a_class_without_a_sample_weighs_nothing():
    logits, labels = random_predictions(PAIRS.parent_indices, 60, seed=3)
    wider = SubclassHierarchy.from_parent([*PAIRS.parent_indices, 2, 2])
    more = torch.cat([logits, torch.zeros(60, 2, dtype=torch.float64)], -1)
    assert label_bits(more, labels, wider) == pytest.approx(label_bits(logits, labels, PAIRS), abs=1e-12)


def test_a_posterior_of_zero_on_the_true_class_counts_as_the_label_frequencies():
    labels = torch.tensor([0, 0, 0, 2, 1])
    frequencies = torch.tensor([3 / 4, 1, 1 / 4, 0], dtype=torch.float64).log()  # (K,) the last is -inf
    nothing = torch.tensor([-math.inf, 0.0, -math.inf, 0.0], dtype=torch.float64)  # all on class 1
    known = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64).log()
    rows = [known, known, known]
    found = label_bits(torch.stack([*rows, nothing, known]), labels, PAIRS)
    assert found == label_bits(torch.stack([*rows, frequencies, known]), labels, PAIRS)
    assert label_bits(nothing.expand(4, 4), labels[:4], PAIRS).soft == 0


def test_a_posterior_on_an_absent_subclass_alone_gives_no_soft_bits_and_a_wrong_prediction():
    only_third = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0]])  # subclass 3, of which there is no sample
    hierarchy = SubclassHierarchy.from_parent([0, 1, 0, 0])
    found = label_bits(only_third.expand(2, 4), torch.tensor([0, 2]), hierarchy)
    assert found.soft == 0
    assert found.accuracy == 0


def test_one_sample_carries_no_bits_but_the_symmetric_ones():
    found = label_bits(torch.eye(4)[:1], torch.tensor([0]), PAIRS)
    assert found == (1.0, 0.0, 0.0, 0.0, 1.0)


def test_a_teacher_too_sure_of_itself_claims_soft_bits_above_the_ceiling():
    labels = torch.tensor([0] * 7 + [2])
    found = label_bits(torch.tensor([[0.0, 0.0, 9.0, 0.0]]).expand(8, 4), labels, PAIRS)  # always the rare one
    assert found.soft > 2 * found.ceiling > 0
    assert found.mutual_information == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_log_probs_that_are_not_numbers_are_refused_with_their_row(wrong):
    logits, labels = torch.zeros(5, 4), torch.zeros(5, dtype=torch.long)
    logits[3, 1] = logits[4, 0] = wrong
    with pytest.raises(ValueError, match=r"in 2 of 5 rows .* the first in row 3"):
        label_bits(logits, labels, PAIRS)


@pytest.mark.parametrize(
    ("shape", "labels", "found"),
    [
        ((0, 4), [], r"\(0, 4\) and labels of \(0,\), but .* N >= 1"),
        ((2, 4), [0], r"\(2, 4\) and labels of \(1,\)"),
        ((4,), [0, 1, 2, 3], r"\(4,\) and labels of \(4,\)"),
        ((2, 3), [0, 1], r"\(2, 3\), but \(\.\.\., 4\)"),
        ((2, 4), [0, 4], "subclass label 4"),
        ((2, 4), [0.0, 1.0], "integers"),
    ],
)
def test_samples_that_do_not_fit_are_refused(shape, labels, found):
    given_labels = torch.tensor(labels) if labels else torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match=found):
        label_bits(torch.zeros(shape), given_labels, PAIRS)
