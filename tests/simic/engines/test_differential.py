"""Some of the random updates with faults in them that `differential.py` makes by the thousand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from differential import NETWORKS, compare, random_case, study, update


@pytest.mark.parametrize("network", NETWORKS)
def test_engines_agree_and_what_is_not_learned_from_changes_nothing(network: str) -> None:
    outcomes = study(range(100 if network == "plain" else 40), network)
    # Neither is so rare that the test would not see it.
    assert min(outcomes["accepted"], outcomes["refused"]) >= 5


def test_gradients_that_are_as_small_as_adams_eps_may_be_rounded() -> None:
    assert study(range(1039, 1040), "plain") == {"accepted": 1}


def test_a_step_that_is_a_hundredth_too_long_is_found() -> None:
    case = random_case(1, "plain")
    agent = case.agent("off")
    # Before the first update nothing is known of the size of gradients.
    agent.update(case.rollout)
    ours = update(agent, agent.state_dict(), case.rollout)
    step = ours.after["parameters/policy"] - ours.before["parameters/policy"]
    theirs = replace(ours, after={**ours.after, "parameters/policy": ours.after["parameters/policy"] + 0.01 * step})
    assert compare(ours, ours, exact_fault=True, all_steps=1) == "accepted"
    with pytest.raises(AssertionError, match=r"parameters/policy: .* too far apart"):
        compare(ours, theirs, exact_fault=True, all_steps=1)
