"""What is said of a tree that has not the form it should have, and what is not looked at."""

from __future__ import annotations

import pytest
import torch

from esper.storage.tree import TreeError, check_form


class TestCheckForm:
    def test_tells_the_whole_path(self) -> None:
        form = {"agent": {"net": {"w": torch.zeros(2), "n": int}}}
        with pytest.raises(TreeError, match=r"^agent/net/n is 'x' \(str\), not of type int$"):
            check_form({"agent": {"net": {"w": torch.zeros(2), "n": "x"}}}, form)
        with pytest.raises(TreeError, match=r"^agent/net/w is None \(NoneType\), not a tensor$"):
            check_form({"agent": {"net": {"w": None, "n": 1}}}, form)
        with pytest.raises(TreeError, match=r"^agent/net is a tensor, not a mapping$"):
            check_form({"agent": {"net": torch.zeros(1)}}, form)
        with pytest.raises(TreeError, match=r"^agent lacks net and has the unknown n, w$"):
            check_form({"agent": {"w": 1, "n": 1}}, form)

    def test_finite_holds_for_every_branch_and_only_where_asked(self) -> None:
        form = {"a": {"b": torch.zeros(2)}}
        broken = {"a": {"b": torch.tensor([0.0, torch.inf])}}
        check_form(broken, form)
        with pytest.raises(TreeError, match=r"^a/b has values that are not finite$"):
            check_form(broken, form, finite=True)

    def test_what_may_be_anything_is_not_looked_at(self) -> None:
        form = {"a": {"b": object}, "b": int}
        check_form({"a": {"b": {"anything": "else"}}, "b": 2}, form, finite=True)
        with pytest.raises(TreeError, match=r"^b is "):
            check_form({"a": {"b": None}, "b": None}, form)

    def test_whole_numbers_may_be_of_64_bits(self) -> None:
        for number in (2**63 - 1, -(2**63)):
            check_form({"n": number}, {"n": int})
        for number in (2**63, -(2**63) - 1):
            with pytest.raises(TreeError, match=r"^n is out of range$"):
                check_form({"n": number}, {"n": int})

    def test_what_differs_in_dtype_and_shape_is_named_by_its_dtype(self) -> None:
        with pytest.raises(TreeError, match=r"^w has dtype torch.int64, not torch.float32$"):
            check_form({"w": torch.zeros(3, dtype=torch.int64)}, {"w": torch.zeros(2)})

    def test_names_five_of_many_missing_ones(self) -> None:
        form = {f"n{number}": int for number in range(8)}
        with pytest.raises(TreeError, match=r"^state lacks n0, n1, n2, n3, n4 and 3 more$"):
            check_form({}, form)
        with pytest.raises(TreeError, match=r"^state lacks n0, n1, n2, n3, n4 and 1 more$"):
            check_form({"n6": 6, "n7": 7}, form)
        with pytest.raises(TreeError, match=r"^state lacks n0, n1, n2, n3, n4$"):
            check_form({"n5": 5, "n6": 6, "n7": 7}, form)

    def test_long_values_are_cut(self) -> None:
        with pytest.raises(TreeError) as error:
            check_form({"n": "x" * 1000}, {"n": int})
        assert len(str(error.value)) < 120
