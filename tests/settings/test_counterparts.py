"""The names of other trainers lead to settings that are there."""

from __future__ import annotations

from esper.runs.config import RunConfig
from esper.settings.counterparts import COUNTERPARTS, suggestion
from esper.settings.layers import common_names
from esper.settings.options import settings_of

SETTINGS = settings_of(RunConfig)
OURS = {*SETTINGS, *common_names(SETTINGS)}


def test_each_leads_to_a_setting_and_is_none_itself() -> None:
    assert {ours for ours, _ in COUNTERPARTS.values()} <= OURS
    assert not COUNTERPARTS.keys() & OURS


def test_a_name_of_nobody_gets_the_nearest() -> None:
    assert suggestion("max_grad_nrm", OURS) == "; did you mean 'max_grad_norm' or 'max_grad_norm_over'?"
    assert suggestion("elephant", OURS) == ""
