"""The laws of the losses, against numpy by hand and against independent implementations."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import entropy

from subclass_kd import SubclassHierarchy, losses

HIERARCHY = SubclassHierarchy.from_parent([0, 1, 0, 2, 1, 0])
BOTH = pytest.mark.parametrize("loss", [losses.distillation, losses.soft_cross_entropy])
TARGETS = pytest.mark.parametrize("hard_target", ["subclass", "class"])


def batch(samples=8, subclasses=6, scale=3.0, seed=0, dtype=torch.float64):
    """Student logits, teacher logits (both N, K) and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, samples, subclasses, dtype=dtype, generator=generator) * scale
    return student, teacher, torch.randint(subclasses, (samples,), generator=generator)


def numpy_log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_distillation_worked_out_by_hand():
    # T = 2, p_t = (3/4, 1/4) from logits (2 log 3, 0), p_s = (1/2, 1/2): 4 (3/4 log 3/2 + 1/4 log 1/2) = 0.523248
    teacher = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    found = losses.distillation(torch.zeros(1, 2, dtype=torch.float64), teacher, 2.0)
    assert found.tolist() == pytest.approx([4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))], abs=1e-14)
    assert found.tolist() == pytest.approx([0.523248], abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**31),
    subclasses=st.integers(2, 12),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    temperature=st.sampled_from([0.5, 1.0, 4.0, 20.0]),
)
def test_soft_losses_are_those_of_numpy_scipy_and_torch(seed, subclasses, scale, temperature):
    student, teacher, _ = batch(subclasses=subclasses, scale=scale, seed=seed)
    log_s, log_t = (numpy_log_softmax(logits.numpy() / temperature) for logits in (student, teacher))
    squared = temperature**2
    exact = {"rtol": 1e-10, "atol": 1e-10}

    divergence = losses.distillation(student, teacher, temperature).numpy()
    np.testing.assert_allclose(divergence, squared * (np.exp(log_t) * (log_t - log_s)).sum(-1), **exact)
    of_torch = F.kl_div(
        F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1), reduction="none"
    )
    np.testing.assert_allclose(divergence, squared * of_torch.sum(-1).numpy(), **exact)

    cross_entropy = losses.soft_cross_entropy(student, teacher, temperature).numpy()
    np.testing.assert_allclose(cross_entropy, -squared * (np.exp(log_t) * log_s).sum(-1), **exact)
    of_scipy = np.exp(log_softmax(teacher.numpy() / temperature, -1))
    np.testing.assert_allclose(cross_entropy - divergence, squared * entropy(of_scipy, axis=-1), rtol=1e-9, atol=1e-9)


def parts_by_hand(student, teacher, hierarchy, temperature):
    """Both parts of the divergence (N,) each, by the definition, class by class, in float64."""
    p_t, p_s = (np.exp(numpy_log_softmax(logits.double().numpy() / temperature)) for logits in (teacher, student))
    parents = np.array(hierarchy.parent_indices)
    of_class, within = np.zeros(len(p_t)), np.zeros(len(p_t))
    for number in range(hierarchy.num_classes):
        t, s = p_t[:, parents == number], p_s[:, parents == number]
        sum_t, sum_s = t.sum(-1), s.sum(-1)
        of_class += sum_t * np.log(sum_t / sum_s)
        inside = t / sum_t[:, None] * np.log((t / sum_t[:, None]) / (s / sum_s[:, None]))
        within += sum_t * inside.sum(-1)
    return temperature**2 * of_class, temperature**2 * within


def test_the_parts_of_a_divergence_worked_out_by_hand():
    # classes {a, b} and {c}; teacher (.4 .2 .4), student (.25 .25 .5): .6 log .6/.5 + .4 log .4/.5 = 0.020136 of class,
    # .6 (2/3 log 4/3 + 1/3 log 2/3) = 0.033980 within
    teacher, student = (torch.tensor([odds]).double().log() for odds in ([0.4, 0.2, 0.4], [0.25, 0.25, 0.5]))
    of_class, within = losses.distillation_parts(student, teacher, SubclassHierarchy.from_parent([0, 0, 1]), 1.0)
    assert of_class.tolist() == pytest.approx([0.6 * math.log(1.2) + 0.4 * math.log(0.8)], abs=1e-14)
    assert within.tolist() == pytest.approx([0.4 * math.log(4 / 3) + 0.2 * math.log(2 / 3)], abs=1e-14)
    assert (of_class.item(), within.item()) == (pytest.approx(0.020136, abs=1e-6), pytest.approx(0.033980, abs=1e-6))


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**31),
    parent=st.sampled_from([(0, 1, 0, 2, 1, 0), (0, 0, 0, 0, 0, 1), (0, 1, 2, 3, 4, 5), (1, 1, 1, 0, 0, 0)]),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    temperature=st.sampled_from([0.5, 1.0, 4.0, 20.0]),
)
def test_the_parts_are_those_of_numpy_and_add_up_at_any_temperature(seed, parent, scale, temperature):
    student, teacher, _ = batch(scale=scale, seed=seed)
    hierarchy = SubclassHierarchy.from_parent(parent)
    parts = losses.distillation_parts(student, teacher, hierarchy, temperature)
    for part, expected in zip(parts, parts_by_hand(student, teacher, hierarchy, temperature), strict=True):
        np.testing.assert_allclose(part.numpy(), expected, rtol=1e-8, atol=1e-8)
        assert (part >= -1e-10).all()
    torch.testing.assert_close(sum(parts), losses.distillation(student, teacher, temperature), rtol=1e-12, atol=1e-12)
    if parent == (0, 1, 2, 3, 4, 5):
        torch.testing.assert_close(parts.within_class, torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 10.0])
def test_within_class_weighs_the_second_part_alone(weight, temperature):
    student, teacher, labels = batch()
    found = losses.subclass_distillation(
        student, teacher, labels, HIERARCHY, temperature=temperature, alpha=0.7, within_class=weight
    )
    of_class, within = parts_by_hand(student, teacher, HIERARCHY, temperature)
    np.testing.assert_allclose(found.soft.numpy(), of_class + weight * within, rtol=1e-9, atol=1e-9)
    hard = F.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(found.hard, hard, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.total, 0.7 * found.soft + 0.3 * hard, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_with_nothing_within_it_is_distillation_of_the_softened_classes(temperature):
    """The class channel alone; and no gradient moves a subclass against another of its class."""
    student, teacher, labels = batch()
    student.requires_grad_()
    settings_ = {"temperature": temperature, "alpha": 1.0, "within_class": 0.0}
    found = losses.subclass_distillation(student, teacher, labels, HIERARCHY, **settings_)
    classes = [HIERARCHY.class_log_probs(logits / temperature) for logits in (student, teacher)]
    torch.testing.assert_close(found.soft, temperature**2 * losses.distillation(*classes, 1.0), rtol=0, atol=1e-10)
    found.total.sum().backward()
    shares = (student.detach() / temperature).softmax(-1)
    for number in range(HIERARCHY.num_classes):
        of_class = HIERARCHY.parent == number
        pull = student.grad[:, of_class] / shares[:, of_class]  # by the chain rule, one number a class
        torch.testing.assert_close(pull, pull[:, :1].expand_as(pull), rtol=1e-8, atol=1e-10)


@TARGETS
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_weight_of_one_changes_no_digit(hard_target, temperature):
    student, teacher, labels = batch(dtype=torch.float32, samples=100)
    chosen = {"temperature": temperature, "alpha": 0.9, "hard_target": hard_target}
    plain = losses.subclass_distillation(student, teacher, labels, HIERARCHY, **chosen)
    same = losses.subclass_distillation(student, teacher, labels, HIERARCHY, **chosen, within_class=1.0)
    assert all(part.equal(other) for part, other in zip(plain, same, strict=True))
    assert plain.soft.equal(losses.distillation(student, teacher, temperature))


@pytest.mark.parametrize("weight", [0.0, 0.5, 10.0])
def test_where_classes_are_the_outputs_no_weight_changes_a_digit(weight):
    student, teacher, labels = batch(dtype=torch.float32, subclasses=3)
    identity = SubclassHierarchy.identity(["a", "b", "c"])
    chosen = {"temperature": 2.0, "alpha": 0.9}
    plain = losses.subclass_distillation(student, teacher, labels, identity, **chosen)
    weighed = losses.subclass_distillation(student, teacher, labels, identity, **chosen, within_class=weight)
    assert all(part.equal(other) for part, other in zip(plain, weighed, strict=True))


def test_class_cross_entropy_is_that_of_numpy():
    student, _, labels = batch()
    class_labels = HIERARCHY.class_labels(labels)
    probabilities = np.exp(numpy_log_softmax(student.numpy()))  # (N, K)
    member = np.array(HIERARCHY.parent_indices) == class_labels.numpy()[:, None]  # (N, K)
    expected = -np.log((probabilities * member).sum(-1))
    found = losses.class_cross_entropy(student, class_labels, HIERARCHY).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@TARGETS
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_subclass_distillation_weighs_its_two_parts(hard_target, alpha):
    student, teacher, labels = batch()
    found = losses.subclass_distillation(
        student, teacher, labels, HIERARCHY, temperature=3.0, alpha=alpha, hard_target=hard_target
    )
    log_s, log_t = (log_softmax(logits.numpy() / 3, -1) for logits in (student, teacher))
    soft = 9 * (np.exp(log_t) * (log_t - log_s)).sum(-1)
    if hard_target == "subclass":
        hard = F.cross_entropy(student, labels, reduction="none").numpy()
    else:
        class_log_probs = HIERARCHY.class_log_probs(student)
        hard = F.nll_loss(class_log_probs, HIERARCHY.parent[labels], reduction="none").numpy()
    exact = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(found.soft.numpy(), soft, **exact)
    np.testing.assert_allclose(found.hard.numpy(), hard, **exact)
    np.testing.assert_allclose(found.total.numpy(), alpha * soft + (1 - alpha) * hard, **exact)


@TARGETS
def test_skd_with_the_identity_hierarchy_is_kd(hard_target):
    student, teacher, labels = batch(subclasses=3)
    found = losses.subclass_distillation(
        student,
        teacher,
        labels,
        SubclassHierarchy.identity(["a", "b", "c"]),
        temperature=4.0,
        alpha=0.9,
        hard_target=hard_target,
    )
    # conventional distillation, written with torch alone
    divergence = F.kl_div(
        (student / 4).log_softmax(-1), (teacher / 4).log_softmax(-1), reduction="none", log_target=True
    )
    expected = 0.9 * 16 * divergence.sum(-1) + 0.1 * F.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(found.total, expected, rtol=0, atol=1e-12)


def test_a_one_hot_teacher_at_temperature_1_and_alpha_1_gives_cross_entropy():
    student, _, labels = batch()
    teacher = 1e4 * F.one_hot(labels, 6).double()
    expected = F.cross_entropy(student, labels, reduction="none")
    found = losses.subclass_distillation(student, teacher, labels, HIERARCHY, temperature=1.0, alpha=1.0)
    torch.testing.assert_close(found.total, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(losses.soft_cross_entropy(student, teacher, 1.0), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 100.0])
def test_a_student_that_agrees_has_no_divergence_and_no_gradient(temperature):
    student = batch()[0].requires_grad_()
    divergence = losses.distillation(student, student.detach() + 7, temperature)
    torch.testing.assert_close(divergence, torch.zeros_like(divergence), rtol=0, atol=1e-10)
    divergence.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), student_offset=st.floats(-1e3, 1e3), teacher_offset=st.floats(-1e3, 1e3))
def test_adding_a_constant_to_all_logits_changes_nothing(seed, student_offset, teacher_offset):
    student, teacher, labels = batch(seed=seed)
    for hard_target in ("subclass", "class"):
        found, moved = (
            losses.subclass_distillation(
                *logits, labels, HIERARCHY, temperature=2.0, alpha=0.5, hard_target=hard_target
            )
            for logits in ((student, teacher), (student + student_offset, teacher + teacher_offset))
        )
        for part, moved_part in zip(found, moved, strict=True):
            torch.testing.assert_close(moved_part, part, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(6)))
def test_reordering_subclasses_changes_no_loss(order):
    student, teacher, labels = batch()
    reordered = SubclassHierarchy.from_parent([HIERARCHY.parent_indices[k] for k in order])
    place = torch.tensor(order).argsort()  # where each subclass has gone
    for hard_target in ("subclass", "class"):
        settings_ = {"temperature": 2.0, "alpha": 0.5, "hard_target": hard_target}
        found = losses.subclass_distillation(student, teacher, labels, HIERARCHY, **settings_).total
        moved = losses.subclass_distillation(
            student[:, order], teacher[:, order], place[labels], reordered, **settings_
        )
        torch.testing.assert_close(moved.total, found, rtol=0, atol=1e-12)


def test_the_class_is_never_harder_to_name_than_the_subclass():
    student, _, labels = batch(samples=200)
    hard = losses.class_cross_entropy(student, HIERARCHY.class_labels(labels), HIERARCHY)
    assert (hard <= F.cross_entropy(student, labels, reduction="none") + 1e-12).all()


def test_at_a_high_temperature_the_gradient_is_that_of_matching_centred_logits():
    # Hinton, Vinyals, Dean 2015, section 2.1: T (p_s - p_t) -> (z_s - z_t, centred) / K, at any high T
    student, teacher, _ = batch()
    student.requires_grad_()
    losses.distillation(student, teacher, 1e5).sum().backward()
    difference = (student - teacher).detach()
    torch.testing.assert_close(student.grad, (difference - difference.mean(-1, keepdim=True)) / 6, rtol=0, atol=1e-3)


@BOTH
def test_the_soft_losses_gradients_are_the_numerical_ones(loss):
    student, teacher, _ = batch(samples=3)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, teacher, 2.0), student.requires_grad_())


@TARGETS
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 4.0])
def test_the_gradient_of_subclass_distillation_is_the_numerical_one(hard_target, weight):
    student, teacher, labels = batch(samples=3)
    chosen = {"temperature": 2.0, "alpha": 0.5, "hard_target": hard_target, "within_class": weight}
    assert torch.autograd.gradcheck(
        lambda logits: losses.subclass_distillation(logits, teacher, labels, HIERARCHY, **chosen),
        student.requires_grad_(),
    )


@TARGETS
def test_no_gradient_reaches_the_teacher(hard_target):
    student, teacher, labels = batch()
    student.requires_grad_()
    teacher.requires_grad_()
    found = losses.subclass_distillation(
        student, teacher, labels, HIERARCHY, temperature=2.0, alpha=0.5, hard_target=hard_target
    )
    (found.total.sum() + losses.soft_cross_entropy(student, teacher, 2.0).sum()).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@TARGETS
@pytest.mark.parametrize("temperature", [0.05, 1.0, 100.0])
def test_losses_of_huge_logits_are_finite_in_float32_with_their_gradients(hard_target, temperature):
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 4) * 1e4  # (81, 4)
    student, teacher = signs.repeat(81, 1).requires_grad_(), signs.repeat_interleave(81, 0)  # (6561, 4): all pairs
    hierarchy = SubclassHierarchy.from_parent([0, 1, 1, 0])
    labels = torch.arange(len(student)) % 4
    found = losses.subclass_distillation(
        student, teacher, labels, hierarchy, temperature=temperature, alpha=0.5, hard_target=hard_target
    )
    exact = losses.subclass_distillation(
        student.double(),
        teacher.double(),
        labels,
        hierarchy,
        temperature=temperature,
        alpha=0.5,
        hard_target=hard_target,
    )
    for part, exact_part in zip(found, exact, strict=True):
        assert part.dtype == torch.float32
        assert part.isfinite().all()
        assert (part >= -1e-3 * temperature).all()
        torch.testing.assert_close(part.double(), exact_part, rtol=1e-5, atol=1e-6 * max(1, temperature**2))
    (found.total + losses.soft_cross_entropy(student, teacher, temperature)).sum().backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("weight", [0.0, 0.5, 10.0])
def test_weighed_parts_of_huge_logits_are_finite_in_float32_with_their_gradients(weight, temperature):
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 4) * 1e4  # (81, 4)
    student, teacher = signs.repeat(81, 1).requires_grad_(), signs.repeat_interleave(81, 0)  # (6561, 4): all pairs
    hierarchy, labels = SubclassHierarchy.from_parent([0, 1, 1, 0]), torch.arange(len(student)) % 4
    chosen = {"temperature": temperature, "alpha": 0.5, "within_class": weight}
    found = losses.subclass_distillation(student, teacher, labels, hierarchy, **chosen)
    exact = losses.subclass_distillation(student.double(), teacher.double(), labels, hierarchy, **chosen)
    for part, exact_part in zip(found, exact, strict=True):
        torch.testing.assert_close(part.double(), exact_part, rtol=1e-4, atol=1e-5 * max(1, temperature**2))
    found.total.sum().backward()
    assert student.grad.isfinite().all()


@TARGETS
def test_under_bf16_autocast_the_losses_are_those_of_float32(hard_target):
    torch.manual_seed(0)
    net, images = torch.nn.Linear(5, 6), torch.randn(8, 5)
    _, teacher, labels = batch(dtype=torch.float32)
    chosen = {"temperature": 4.0, "alpha": 0.5, "hard_target": hard_target}
    with torch.autocast("cpu", torch.bfloat16):
        student = net(images)
        found = losses.subclass_distillation(student, teacher.bfloat16(), labels, HIERARCHY, **chosen)
    assert student.dtype == torch.bfloat16
    expected = losses.subclass_distillation(student.float(), teacher.bfloat16().float(), labels, HIERARCHY, **chosen)
    for part, expected_part in zip(found, expected, strict=True):
        assert part.dtype == torch.float32
        assert torch.equal(part, expected_part)
    found.total.mean().backward()
    assert net.weight.grad.isfinite().all()


@TARGETS
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_no_loss_looks_at_values_so_none_waits_for_a_device(hard_target, weight):
    student, teacher, labels = (tensor.to("meta") for tensor in batch())  # tensors without values
    chosen = {"temperature": 2.0, "alpha": 0.5, "hard_target": hard_target, "within_class": weight}
    found = losses.subclass_distillation(student, teacher, labels, HIERARCHY, **chosen)
    assert found.total.shape == losses.soft_cross_entropy(student, teacher, 2.0).shape == (8,)


def test_an_empty_batch_has_an_empty_loss():
    student, teacher, labels = batch(samples=0)
    found = losses.subclass_distillation(
        student, teacher, labels, HIERARCHY, temperature=2.0, alpha=0.5, hard_target="class"
    )
    assert [part.shape for part in found] == [(0,)] * 3


@BOTH
@pytest.mark.parametrize("shape", [(8, 5), (7, 6), (1, 6), (6,)])
def test_student_and_teacher_of_different_shapes_are_refused_with_both(loss, shape):
    student = batch()[0]
    with pytest.raises(ValueError, match=rf"student .*\(8, 6\) and teacher .*{re.escape(str(shape))}"):
        loss(student, torch.zeros(shape), 2.0)


@TARGETS
def test_a_student_of_another_hierarchy_is_refused_with_both_shapes(hard_target):
    student, teacher, labels = batch(subclasses=5)
    with pytest.raises(ValueError, match=r"\(8, 5\), but \(\.\.\., 6\) was expected"):
        losses.subclass_distillation(
            student, teacher, labels, HIERARCHY, temperature=2.0, alpha=0.5, hard_target=hard_target
        )


@BOTH
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_above_0_is_refused(loss, temperature):
    with pytest.raises(ValueError, match=f"found temperature {temperature}, .*above 0"):
        loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"alpha": 2.0}, "found alpha 2.0, .* 0 to 1"),
        ({"alpha": -0.1}, "found alpha -0.1"),
        ({"alpha": math.nan}, "found alpha nan"),
        ({"temperature": -1.0}, "found temperature -1.0"),
        ({"within_class": -0.1}, "found within_class -0.1, .* at least 0"),
        ({"within_class": math.inf}, "found within_class inf"),
        ({"within_class": math.nan}, "found within_class nan"),
        ({"hard_target": "subclasses"}, 'found hard_target \'subclasses\', .*"subclass" or "class"'),
    ],
)
def test_a_setting_out_of_range_is_refused(wrong, found):
    with pytest.raises(ValueError, match=found):
        losses.subclass_distillation(*batch(), HIERARCHY, **{"temperature": 1.0, "alpha": 0.5} | wrong)


@TARGETS
@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (torch.zeros(8), r"dtype torch\.float32, but integers"),
        (torch.zeros(7, dtype=torch.long), r"labels of shape \(7,\) with logits of \(8, \d\), but \(8,\)"),
        (torch.zeros(8, 1, dtype=torch.long), r"labels of shape \(8, 1\)"),
    ],
)
def test_labels_of_another_kind_or_shape_are_refused(hard_target, labels, found):
    student, teacher, _ = batch()
    with pytest.raises(ValueError, match=found):
        losses.subclass_distillation(
            student, teacher, labels, HIERARCHY, temperature=1.0, alpha=0.5, hard_target=hard_target
        )


@TARGETS
@pytest.mark.parametrize("wrong", [-100, -1, 6])
def test_a_label_out_of_range_is_never_silently_left_out(hard_target, wrong):
    student, teacher, labels = batch()
    labels[3] = wrong
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        losses.subclass_distillation(
            student, teacher, labels, HIERARCHY, temperature=1.0, alpha=0.5, hard_target=hard_target
        )


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 3.0, 30.0]), alpha=st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_one_cross_entropy_of_mixed_targets_is_the_distillation_loss_but_for_the_teachers_entropy(seed, scale, alpha):
    student, teacher, labels = batch(scale=scale, seed=seed)
    probs, excess = losses.mixed_targets(teacher, labels, alpha)
    by_hand = alpha * np.exp(numpy_log_softmax(teacher.numpy())) + (1 - alpha) * np.eye(6)[labels.numpy()]
    np.testing.assert_allclose(probs.numpy(), by_hand, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(excess.numpy(), alpha * entropy(teacher.softmax(-1).numpy(), axis=-1), atol=1e-12)

    one, two = (student.clone().requires_grad_() for _ in range(2))
    mixed = F.cross_entropy(one, probs, reduction="none")
    whole = losses.subclass_distillation(two, teacher, labels, HIERARCHY, temperature=1.0, alpha=alpha).total
    torch.testing.assert_close(mixed - excess, whole, rtol=1e-10, atol=1e-10)
    mixed.sum().backward()
    whole.sum().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-10, atol=1e-12)


def test_mixed_targets_refuse_a_wrong_weight_and_wrong_labels():
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=re.escape("found alpha 1.5, but it weights the soft term")):
        losses.mixed_targets(logits, torch.tensor([0, 1]), 1.5)
    with pytest.raises(ValueError, match=re.escape("found labels of shape (3,) with logits of (2, 3)")):
        losses.mixed_targets(logits, torch.tensor([0, 1, 2]), 0.5)
    with pytest.raises(ValueError, match="integers were expected"):
        losses.mixed_targets(logits, torch.tensor([0.0, 1.0]), 0.5)
