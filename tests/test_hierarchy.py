"""The laws of the hierarchy: names, their refusals, and class log-probabilities."""

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from subclass_kd import SubclassHierarchy

CLOTHES = {"shirt": "upper", "boot": "lower", "coat": "upper", "sandal": "lower", "bag": "other"}


@st.composite
def parents(draw):
    """Parent lists of 2 to 4 classes with 1 to 5 subclasses each, shuffled."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    return draw(st.permutations([c for c, size in enumerate(sizes) for _ in range(size)]))


def test_importing_and_refusing_a_hierarchy_takes_no_torch():
    code = """if True:
        import sys
        from subclass_kd.hierarchy import SubclassHierarchy
        hierarchy = SubclassHierarchy(["a", "b"], {"x": "b", "y": "a"})
        assert hierarchy == SubclassHierarchy.from_dict(hierarchy.to_dict()) and hierarchy.parent_indices == (1, 0)
        try:
            SubclassHierarchy(["a", "b"], {"x": "a"})
        except ValueError as error:
            print(error)
        print("torch" in sys.modules)
    """
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "class 'b' has no subclass" in shown
    assert shown.splitlines()[-1] == "False"


def test_the_order_of_classes_and_subclasses_is_kept():
    hierarchy = SubclassHierarchy(["upper", "lower", "other"], CLOTHES)
    assert hierarchy.classes == ("upper", "lower", "other")
    assert hierarchy.subclasses == ("shirt", "boot", "coat", "sandal", "bag")
    assert hierarchy.parent_indices == (0, 1, 0, 1, 2)
    assert hierarchy.parent.dtype == torch.long
    assert hierarchy.parent.tolist() == [0, 1, 0, 1, 2]
    assert (hierarchy.num_classes, hierarchy.num_subclasses) == (3, 5)


@pytest.mark.parametrize(
    ("classes", "subclasses", "found"),
    [
        (["a", "b"], {"x": "a"}, "class 'b' has no subclass"),
        (["a", "b"], {"x": "a", "y": "b", "z": "c"}, r"subclass 'z' belongs to class 'c', .* \['a', 'b'\]"),
        (["a", "b", "a"], {"x": "a", "y": "b"}, "class 'a' twice"),
        (["a"], {"x": "a"}, r"\['a'\], .* at least two"),
        ([], {}, "at least two"),
    ],
)
def test_a_wrong_hierarchy_is_refused_by_name(classes, subclasses, found):
    with pytest.raises(ValueError, match=found):
        SubclassHierarchy(classes, subclasses)


@pytest.mark.parametrize(
    ("parent", "found"),
    [([0, 2, 0], "'class 1' has no subclass"), ([0, 1, -1], "'subclass 2' .* 'class -1'"), ([0], "two"), ([], "two")],
)
def test_a_wrong_parent_list_is_refused_by_made_up_name(parent, found):
    with pytest.raises(ValueError, match=found):
        SubclassHierarchy.from_parent(parent)


def test_a_parent_that_is_no_integer_is_refused():
    with pytest.raises(TypeError):
        SubclassHierarchy.from_parent([0, 0.5, 1])


def test_a_parent_list_may_be_an_array_or_a_tensor():
    assert SubclassHierarchy.from_parent(np.array([0, 1, 0])) == SubclassHierarchy.from_parent([0, 1, 0])
    assert SubclassHierarchy.from_parent(torch.tensor([0, 1, 0])) == SubclassHierarchy.from_parent([0, 1, 0])


def test_a_hierarchy_outlives_json_with_sorted_keys():
    hierarchy = SubclassHierarchy(["upper", "lower", "other"], CLOTHES)
    content = json.dumps(hierarchy.to_dict(), sort_keys=True)
    assert SubclassHierarchy.from_dict(json.loads(content)) == hierarchy


def test_a_subclass_stored_twice_is_refused_by_name():
    rows = [{"name": "x", "class": "a"}, {"name": "y", "class": "b"}, {"name": "x", "class": "b"}]
    with pytest.raises(ValueError, match="subclass 'x' twice"):
        SubclassHierarchy.from_dict({"classes": ["a", "b"], "subclasses": rows})


def test_hierarchies_are_values():
    hierarchy, twin = (SubclassHierarchy(["upper", "lower", "other"], CLOTHES) for _ in range(2))
    assert hierarchy == twin
    assert hash(hierarchy) == hash(twin)
    assert eval(repr(hierarchy)) == hierarchy
    hierarchy.class_log_probs(torch.zeros(5))  # tensors kept for a device are no part of the value
    assert pickle.loads(pickle.dumps(hierarchy)) == copy.deepcopy(hierarchy) == twin
    assert hierarchy != SubclassHierarchy(["upper", "lower", "other"], dict(reversed(CLOTHES.items())))


def test_a_hierarchy_cannot_be_changed():
    hierarchy = SubclassHierarchy.from_parent([0, 1])
    with pytest.raises(FrozenInstanceError):
        hierarchy.classes = ("a", "b")
    hierarchy.parent[0] = 1
    assert hierarchy.parent.tolist() == [0, 1]


def test_class_log_probs_worked_out_by_hand():
    hierarchy = SubclassHierarchy.from_parent([0, 1, 0, 1, 2])
    # (1 + 2)/10, (3 + 3)/10, 1/10
    logits = torch.tensor([1.0, 3.0, 2.0, 3.0, 1.0], dtype=torch.float64).log()
    expected = torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64).log()
    torch.testing.assert_close(hierarchy.class_log_probs(logits), expected, rtol=0, atol=1e-14)


@settings(deadline=None, max_examples=50)
@given(parent=parents(), seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 3.0, 100.0]))
def test_class_log_probs_are_those_of_numpy_and_sum_to_one(parent, seed, scale):
    logits = np.random.default_rng(seed).normal(scale=scale, size=(2, 3, len(parent)))
    found = SubclassHierarchy.from_parent(parent).class_log_probs(torch.tensor(logits)).numpy()
    columns = [[k for k, of in enumerate(parent) if of == c] for c in range(max(parent) + 1)]
    independent = np.stack([logsumexp(logits[..., of], axis=-1) for of in columns], -1) - logsumexp(
        logits, axis=-1, keepdims=True
    )
    np.testing.assert_allclose(found, independent, rtol=0, atol=1e-10)
    assert (found <= 0).all()
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(parent=parents(), data=st.data())
def test_reordering_subclasses_changes_no_class_log_prob(parent, data):
    order = data.draw(st.permutations(range(len(parent))))
    logits = torch.randn(7, len(parent), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hierarchy = SubclassHierarchy.from_parent(parent)
    reordered = SubclassHierarchy.from_parent([parent[k] for k in order])
    torch.testing.assert_close(
        reordered.class_log_probs(logits[:, order]), hierarchy.class_log_probs(logits), rtol=0, atol=1e-13
    )


def test_adding_a_constant_to_all_logits_costs_no_digit_in_float32():
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)).mul(64).round() / 64  # sums are exact
    hierarchy = SubclassHierarchy.from_parent([0, 1, 0, 1, 1])
    assert torch.equal(hierarchy.class_log_probs(logits + 4096), hierarchy.class_log_probs(logits))


def test_classes_that_are_their_own_subclasses_have_the_log_softmax():
    logits = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = SubclassHierarchy.identity(["a", "b", "c"]).class_log_probs(logits)
    torch.testing.assert_close(found, logits.log_softmax(-1), rtol=0, atol=1e-15)


def test_class_log_probs_of_huge_logits_are_finite_with_the_right_gradient():
    logits = torch.tensor(
        [[1e4, -1e4, -1e4], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4], [-1e4, 1e4, -1e4]], requires_grad=True
    )
    found = SubclassHierarchy.from_parent([0, 1, 0]).class_log_probs(logits)  # (4, 2)
    expected = torch.tensor(
        [[0, -2e4], [0, -2e4], [np.log(2 / 3), np.log(1 / 3)], [np.log(2) - 2e4, 0]], dtype=torch.float32
    )
    torch.testing.assert_close(found, expected)
    found[:, 0].sum().backward()
    # p(k | class 0) - p(k): what a subclass gives its class less what it takes from all
    third, half = 1 / 3, 1 / 2
    gradient = torch.tensor([[0, 0, 0], [0, 0, 0], [half - third, -third, half - third], [half, -1, half]])
    torch.testing.assert_close(logits.grad, gradient, rtol=1e-3, atol=1e-6)  # float32 steps by 2e-3 at 2e4


def test_the_gradient_of_class_log_probs_is_the_numerical_one():
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(SubclassHierarchy.from_parent([0, 1, 0, 1, 0]).class_log_probs, logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype):
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    hierarchy = SubclassHierarchy.from_parent([0, 1, 1, 0])
    found = hierarchy.class_log_probs(logits)
    assert found.dtype == torch.float32
    assert torch.equal(found, hierarchy.class_log_probs(logits.float()))


def test_a_hierarchy_first_used_for_inference_can_train():
    hierarchy = SubclassHierarchy.from_parent([1, 0, 1, 0, 0, 1, 1])  # in no other test, so nothing is kept yet
    with torch.inference_mode():
        hierarchy.class_log_probs(torch.zeros(1, 7))
    logits = torch.zeros(1, 7, requires_grad=True)
    hierarchy.class_log_probs(logits)[0, 0].backward()
    assert logits.grad.isfinite().all()


def test_an_empty_batch_has_no_class_log_probs():
    assert SubclassHierarchy.from_parent([0, 1, 0]).class_log_probs(torch.zeros(0, 3)).shape == (0, 2)


@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (0,), ()])
def test_logits_of_another_hierarchy_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"found .*\(.*\), but \(\.\.\., 3\) was expected"):
        SubclassHierarchy.from_parent([0, 1, 0]).class_log_probs(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_class_labels_are_the_parents_of_subclass_labels(dtype):
    hierarchy = SubclassHierarchy.from_parent([0, 1, 0, 2])
    labels = torch.tensor([[3, 2], [1, 0]], dtype=dtype)
    assert hierarchy.class_labels(labels).tolist() == [[2, 0], [1, 0]]
    assert hierarchy.class_labels(labels, check_range=False).dtype == torch.long


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_label_out_of_range_is_refused_by_value(wrong):
    hierarchy = SubclassHierarchy.from_parent([0, 1, 0, 2])
    with pytest.raises(ValueError, match=rf"subclass label {wrong} \(1 of 3 out of range\), but 0 to 3"):
        hierarchy.class_labels(torch.tensor([0, wrong, 1]))
    with pytest.raises(IndexError):  # unchecked, the device still refuses; it never wraps around
        hierarchy.class_labels(torch.tensor([0, wrong, 1]), check_range=False)


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match=r"torch\.float32, but integers"):
        SubclassHierarchy.from_parent([0, 1]).class_labels(torch.tensor([0.0, 1.0]))
