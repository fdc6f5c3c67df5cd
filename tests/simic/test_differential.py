"""Some of the random updates with faults in them that `differential.py` makes by the thousand."""

from __future__ import annotations

import pytest
from differential import NETWORKS, study


@pytest.mark.parametrize("network", NETWORKS)
def test_engines_agree_and_what_is_not_learned_from_changes_nothing(network: str) -> None:
    outcomes = study(range(100 if network == "plain" else 25), network)
    # Neither is so rare that the test would not see it.
    assert min(outcomes["accepted"], outcomes["refused"]) >= 5
