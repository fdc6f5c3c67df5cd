"""State trees at any depth: where their tensors go, and what is said of where they differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from esper.storage.tree import TreeError, differences, merge, split, with_arrays


class TestSplitAndMerge:
    def test_the_path_of_a_name_with_the_separator_is_told_from_the_root(self) -> None:
        with pytest.raises(TreeError, match=r"^agent/net/a/b.* names must .* a /"):
            split({"agent": {"net": {"a/b": torch.zeros(1)}}})

    def test_depth_does_not_matter(self) -> None:
        tree = {
            "a": {"b": {"c": {"t": torch.tensor([1.5]), "n": 1}}, "t": torch.tensor([2.5])},
            "t": torch.tensor([3.5]),
        }
        tensors, rest = split(tree)
        assert {path: tensor.item() for path, tensor in tensors.items()} == {"a/b/c/t": 1.5, "a/t": 2.5, "t": 3.5}
        assert rest == {"a": {"b": {"c": {"n": 1}}}}
        assert merge(tensors, rest) == tree

    def test_tensors_are_not_copied(self) -> None:
        array, tensor = np.zeros(2), torch.zeros(2)
        tensors, _ = split({"array": array, "tensor": tensor})
        array[0] = tensor[0] = 1
        assert tensors["array"].tolist() == tensors["tensor"].tolist() == [1.0, 0.0]

    def test_leaves_the_tree_as_it_was(self) -> None:
        tree = {"a": {"t": torch.zeros(1), "n": 1}}
        merge(*split(tree))["a"]["n"] = 2
        assert tree["a"]["n"] == 1

    @pytest.mark.parametrize("path", ["leaf/x/y", "leaf/x", "leaf", "none/x/y"])
    def test_nothing_is_below_a_leaf(self, path: str) -> None:
        with pytest.raises(TreeError, match=f"^tensor '{path}' has no place in the state$"):
            merge({path: torch.zeros(1)}, {"leaf": 3})

    def test_a_long_path_without_a_place_is_cut(self) -> None:
        with pytest.raises(TreeError) as error:
            merge({"x/" * 500: torch.zeros(1)}, {})
        assert len(str(error.value)) < 250


class TestWithArrays:
    def test_in_place_of_tensors_at_any_depth(self) -> None:
        tree = with_arrays({"a": {"t": torch.tensor([1.0, 2.0])}, "n": 3, "list": [1]})
        assert isinstance(tree["a"]["t"], np.ndarray)
        assert tree["a"]["t"].tolist() == [1.0, 2.0]
        assert (tree["n"], tree["list"]) == (3, [1])


class TestDifferences:
    def test_a_branch_against_a_leaf(self) -> None:
        assert list(differences({"a": {"b": 1}}, {"a": 1})) == ["a: {'b': 1}, now 1"]
        assert list(differences({"a": 1}, {"a": {"b": 1}})) == ["a: 1, now {'b': 1}"]

    def test_a_name_that_only_one_has(self) -> None:
        assert list(differences({"a": 1, "c": {"d": 2}}, {"b": 3, "c": {}})) == [
            *("a: 1, now None", "b: None, now 3", "c/d: 2, now None")
        ]

    def test_types_differ_although_values_do_not(self) -> None:
        assert list(differences({"a": 1, "b": True}, {"a": 1.0, "b": True})) == ["a: 1, now 1.0"]
