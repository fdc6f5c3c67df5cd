"""State trees: taken apart, put together, held to a template."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from esper.storage.tree import TreeError, check_form, differences, merge, split

TREE: dict[str, Any] = {
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
        with pytest.raises(TreeError, match="a/b is no name: names must be text without a /, not empty"):
            split({"a/b": 1})

    @pytest.mark.parametrize(
        "value",
        [
            *(np.int64(3), np.float64(0.1), np.float32(-0.0), np.bool_(True), np.uint8(255), np.float64(np.inf)),
            *(math.inf, -math.inf, 1.5, -0.0, 2**100, True, None, "x", [1, [2.5, {"a": None}]]),
        ],
    )
    def test_every_value_comes_back_as_what_it_was(self, value: object) -> None:
        back = merge(*split({"a": {"b": value}}))["a"]["b"]
        assert type(back) is type(value)
        assert repr(back) == repr(value)

    def test_nan_comes_back(self) -> None:
        back = merge(*split({"a": math.nan, "b": np.float32(np.nan)}))
        assert (type(back["a"]), type(back["b"])) == (float, np.float32)
        assert math.isnan(back["a"])
        assert np.isnan(back["b"])

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({3: 1}, "a/3 is no name: names must be text"),
            ({"": 1}, "a/ is no name"),
            (object(), r"a is <object .*> \(object\); it must be an array, a number, text"),
            ({"b": np.array(["x"])}, "a/b is an array of <U1; it must be of numbers or booleans"),
            (np.array([None]), "a is an array of object"),
            ([1.0, math.inf], r"a\[1\] is inf \(float\); .* in a list, finite numbers"),
            ([{"b": np.int64(1)}], r"a\[0\]\['b'\] is np.int64\(1\) \(int64\)"),
            ([{1: 2}], r"a\[0\] has the name 1, which is not text"),
            ({1, 2}, r"a is \{1, 2\} \(set\)"),
        ],
    )
    def test_what_cannot_be_stored_is_named(self, value: object, message: str) -> None:
        with pytest.raises(TreeError, match=message):
            split({"a": value})

    def test_a_number_stored_as_what_it_is_not(self) -> None:
        with pytest.raises(TreeError, match=r"a has shape \[2\]; it must be one number"):
            merge({"a//numpy": torch.zeros(2)}, {})

    @pytest.mark.parametrize("path", ["count", "count/x", "agent/empty/deeper/x", "nowhere/x", "agent/weights/x"])
    def test_a_tensor_without_a_place(self, path: str) -> None:
        tensors, rest = split(TREE)
        with pytest.raises(TreeError, match="has no place in the state"):
            merge(tensors | {path: torch.zeros(1)}, rest)


class TestCheckForm:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"b": torch.zeros(2)}, "state lacks a"),
            ({"a": 1, "b": torch.zeros(2), "c": 1}, "state has the unknown c"),
            ({"a": 1, "x": torch.zeros(2)}, "state lacks b and has the unknown x"),
            ({"a": True, "b": torch.zeros(2)}, r"a is True \(bool\), not of type int"),
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
            check_form(changed, {"a": int, "b": torch.ones(2)}, finite=True)

    def test_takes_what_has_the_same_form(self) -> None:
        form = {"a": int, "b": torch.ones(2, device="meta"), "c": str, "d": object}
        check_form({"a": 5, "b": torch.tensor([1.0, np.inf]), "c": "x", "d": [{}]}, form)
        check_form({"a": 5, "b": np.ones(2, dtype=np.float32), "c": "", "d": None}, form)


def test_differences_go_by_path() -> None:
    stored, now = {"a": {"b": 1.0, "c": 2}, "d": None}, {"a": {"b": 1.5, "c": 2}, "d": 0}
    assert list(differences(stored, now)) == ["a/b: 1.0, now 1.5", "d: None, now 0"]
    assert list(differences(stored, stored)) == []
