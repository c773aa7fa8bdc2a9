"""Tensors on disk: what comes back, and what counts as valid."""

import pytest
import torch

from subclass_kd import store
from subclass_kd.errors import UserError

TENSORS = {
    "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "count": torch.tensor(7),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
}
NOTES = {"best": {"epoch": 3}, "train_seconds": 1.25, "name": "Müller"}


@pytest.fixture
def path(tmp_path):
    """Give the path of a file of the recipe "abc"."""
    store.save(tmp_path / "file.safetensors", TENSORS, "abc", NOTES)
    return tmp_path / "file.safetensors"


def test_tensors_and_notes_come_back_as_they_went(path):
    loaded = store.load(path)
    assert set(loaded) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].equal(tensor)
    assert store.notes(path) == NOTES
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_valid_for_the_recipe_that_made_it_alone(path):
    assert store.is_valid(path, "abc")
    assert not store.is_valid(path, "abd")
    assert not store.is_valid(path, "")


def test_a_file_of_another_format_is_not_valid(path, monkeypatch):
    monkeypatch.setattr(store, "FORMAT", store.FORMAT + 1)
    assert not store.is_valid(path, "abc")
    assert not store.is_damaged(path)


def test_a_flipped_bit_of_the_format_makes_a_damaged_file_not_one_of_another(path):
    written = f'"format":"{store.FORMAT}"'.encode()
    content = path.read_bytes()
    assert written in content
    path.write_bytes(content.replace(written, f'"format":"{store.FORMAT - 1}"'.encode()))
    assert not store.is_valid(path, "abc")
    assert store.is_damaged(path)


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_truncated_file_is_not_valid_and_not_readable(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    assert not store.is_valid(path, "abc")
    for read in (store.load, store.notes):
        with pytest.raises(UserError, match="cannot be read"):
            read(path)


@pytest.mark.parametrize("content", [b"PK\3\4 something else entirely", b"\x80\x04K\x01.", b"{}" * 50])
def test_a_foreign_file_is_not_valid(path, content):
    path.write_bytes(content)
    assert not store.is_valid(path, "abc")


FOREIGN = {
    "no metadata": b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
    "null": b'{"__metadata__":null,"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
    "other metadata": b'{"__metadata__":{"notes":"7"},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
    "no tensors": b"{}",
}


@pytest.mark.parametrize("header", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_safetensors_file_is_a_damaged_one_without_notes_and_checksum(path, header):
    from safetensors.torch import load

    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1 if b"shape" in header else 0))
    assert set(load(path.read_bytes())) <= {"x"}  # a good file, to safetensors
    assert not store.is_valid(path, "abc")
    assert store.is_damaged(path)
    for read in (store.load, store.notes, store.checksum):
        with pytest.raises(UserError, match=r"a file that cannot be read .* Delete it, run again\."):
            read(path)


def test_a_missing_file_and_a_folder_are_not_valid(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        assert not store.is_valid(path, "abc")
        with pytest.raises(UserError) as caught:
            store.load(path)
        assert caught.value.where == str(path)
        with pytest.raises(UserError):
            store.notes(path)


def test_a_fingerprint_of_weights_tells_names_and_values_apart_and_not_order():
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0]), "n": torch.tensor(4)}
    mark = store.weights_fingerprint(weights)
    assert store.weights_fingerprint(dict(reversed(weights.items()))) == mark
    others = [
        {**weights, "a": torch.tensor([1.0, 2.0000002])},
        {**weights, "a": torch.tensor([[1.0, 2.0]])},
        {"b": weights["a"], "a": weights["b"], "n": weights["n"]},
        {"a": weights["a"], "b": weights["b"]},
    ]
    assert len({mark, *map(store.weights_fingerprint, others)}) == 5
    assert store.weights_fingerprint({"half": torch.ones(2, dtype=torch.bfloat16)})
