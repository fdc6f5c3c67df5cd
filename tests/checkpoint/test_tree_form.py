"""What is said of a tree that has not the form it should have, and what is not looked at."""

from __future__ import annotations

import pytest
import torch

from esper.checkpoint.tree import TreeError, check_like


class TestCheckLike:
    def test_tells_the_whole_path(self) -> None:
        template = {"agent": {"net": {"w": torch.zeros(2), "n": 1}}}
        with pytest.raises(TreeError, match=r"^agent/net/n is 'x' \(str\), not 1 \(int\)$"):
            check_like({"agent": {"net": {"w": torch.zeros(2), "n": "x"}}}, template)
        with pytest.raises(TreeError, match=r"^agent/net/w is None \(NoneType\), not a tensor$"):
            check_like({"agent": {"net": {"w": None, "n": 1}}}, template)
        with pytest.raises(TreeError, match=r"^agent/net is a tensor, not a mapping$"):
            check_like({"agent": {"net": torch.zeros(1)}}, template)
        with pytest.raises(TreeError, match=r"^agent lacks net and has the unknown n, w$"):
            check_like({"agent": {"w": 1, "n": 1}}, template)

    def test_finite_holds_for_every_branch_and_only_where_asked(self) -> None:
        template = {"a": {"b": torch.zeros(2)}}
        broken = {"a": {"b": torch.tensor([0.0, torch.inf])}}
        check_like(broken, template)
        with pytest.raises(TreeError, match=r"^a/b has values that are not finite$"):
            check_like(broken, template, finite=True)

    def test_what_is_free_is_so_for_its_own_path_and_all_below(self) -> None:
        template = {"a": {"b": torch.zeros(1)}, "b": 1}
        free = frozenset({"a/b"})
        check_like({"a": {"b": {"anything": "else"}}, "b": 2}, template, finite=True, free=free)
        with pytest.raises(TreeError, match=r"^b is "):
            check_like({"a": {"b": None}, "b": None}, template, free=free)

    def test_whole_numbers_may_be_of_64_bits(self) -> None:
        for number in (2**63 - 1, -(2**63)):
            check_like({"n": number}, {"n": 0})
        for number in (2**63, -(2**63) - 1):
            with pytest.raises(TreeError, match=r"^n is out of range$"):
                check_like({"n": number}, {"n": 0})

    def test_what_differs_in_dtype_and_shape_is_named_by_its_dtype(self) -> None:
        with pytest.raises(TreeError, match=r"^w has dtype torch.int64, not torch.float32$"):
            check_like({"w": torch.zeros(3, dtype=torch.int64)}, {"w": torch.zeros(2)})

    def test_names_five_of_many_missing_ones(self) -> None:
        template = {f"n{number}": number for number in range(8)}
        with pytest.raises(TreeError, match=r"^state lacks n0, n1, n2, n3, n4 and 3 more$"):
            check_like({}, template)
        with pytest.raises(TreeError, match=r"^state lacks n0, n1, n2, n3, n4 and 1 more$"):
            check_like({"n6": 6, "n7": 7}, template)
        with pytest.raises(TreeError, match=r"^state lacks n0, n1, n2, n3, n4$"):
            check_like({"n5": 5, "n6": 6, "n7": 7}, template)

    def test_long_values_are_cut(self) -> None:
        with pytest.raises(TreeError) as error:
            check_like({"n": "x" * 1000}, {"n": 1})
        assert len(str(error.value)) < 120
