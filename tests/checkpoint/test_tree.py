"""State trees: taken apart, put together, held to a template."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from esper.checkpoint.tree import TreeError, check_like, differences, merge, split

TREE = {
    "count": 3,
    "agent": {"weights": torch.arange(4.0), "empty": {}, "generator": {"state": 2**100}},
    "env": {"steps": np.array([1, 2]), "none": None},
}


class TestSplitAndMerge:
    def test_tensors_go_by_path_and_come_back_to_their_places(self) -> None:
        tensors, rest = split(TREE)
        assert set(tensors) == {"agent/weights", "env/steps"}
        assert rest == {"count": 3, "agent": {"empty": {}, "generator": {"state": 2**100}}, "env": {"none": None}}
        back = merge(tensors, rest)
        assert back["agent"]["weights"].equal(TREE["agent"]["weights"])
        assert back["env"]["steps"].tolist() == [1, 2]
        assert back["env"]["steps"].dtype == torch.int64

    def test_a_name_with_the_separator(self) -> None:
        with pytest.raises(TreeError, match="a/b: names must not have a /"):
            split({"a/b": 1})

    @pytest.mark.parametrize("path", ["count", "count/x", "agent/empty/deeper/x", "nowhere/x", "agent/weights/x"])
    def test_a_tensor_without_a_place(self, path: str) -> None:
        tensors, rest = split(TREE)
        with pytest.raises(TreeError, match="has no place in the state"):
            merge(tensors | {path: torch.zeros(1)}, rest)


class TestCheckLike:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"b": torch.zeros(2)}, "state lacks a"),
            ({"a": 1, "b": torch.zeros(2), "c": 1}, "state has the unknown c"),
            ({"a": 1, "x": torch.zeros(2)}, "state lacks b and has the unknown x"),
            ({"a": True, "b": torch.zeros(2)}, r"a is True \(bool\), not 1 \(int\)"),
            ({"a": 2**63, "b": torch.zeros(2)}, "a is out of range"),
            ({"a": 1, "b": [0.0, 0.0]}, r"b is \[0.0, 0.0\] \(list\), not a tensor"),
            ({"a": 1, "b": torch.zeros(3)}, r"b has shape \[3\], not \[2\]"),
            ({"a": 1, "b": torch.zeros(2).double()}, "b has dtype torch.float64, not torch.float32"),
            ({"a": 1, "b": torch.tensor([0.0, np.nan])}, "b has values that are not finite"),
            ([], r"state is \[\] \(list\), not a mapping"),
        ],
    )
    def test_names_the_difference(self, changed: object, message: str) -> None:
        with pytest.raises(TreeError, match=message):
            check_like(changed, {"a": 1, "b": torch.ones(2)}, finite=True)

    def test_takes_what_has_the_same_form(self) -> None:
        check_like({"a": 5, "b": torch.tensor([1.0, np.inf])}, {"a": 1, "b": np.ones(2, dtype=np.float32)})

    def test_does_not_look_at_what_is_free(self) -> None:
        check_like({"a": {"b": "anything"}}, {"a": {"b": torch.zeros(1)}}, free=frozenset({"a/b"}))


def test_differences_go_by_path() -> None:
    stored, now = {"a": {"b": 1.0, "c": 2}, "d": None}, {"a": {"b": 1.5, "c": 2}, "d": 0}
    assert list(differences(stored, now)) == ["a/b: 1.0, now 1.5", "d: None, now 0"]
    assert list(differences(stored, stored)) == []
