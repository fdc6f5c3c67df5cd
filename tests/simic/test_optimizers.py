"""Adam against torch's own, and the promises about groups and tensors."""

import pytest
import torch
from torch import nn

from esper.simic.optimizers import Adam, adam_step, restore_unless


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def groups_of(module: nn.Sequential) -> dict[str, dict[str, nn.Parameter]]:
    named = dict(module.named_parameters())
    return {layer: {n: p for n, p in named.items() if n.startswith(layer)} for layer in ("0", "1")}


def gradients_for(optimizer: Adam, step: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(step)
    return tuple(torch.randn(flat.shape, generator=generator) for flat in optimizer.state.parameters)


def test_equals_torch_adam_with_two_rates_that_change() -> None:
    module, reference = two_layers(), two_layers()
    optimizer = Adam(module, groups_of(module), eps=1e-5)
    theirs = torch.optim.Adam([{"params": layer.parameters()} for layer in reference], eps=1e-5)
    for step in range(50):
        rates = {"0": 1e-3 * (50 - step) / 50, "1": 1e-2}
        optimizer.set_learning_rates(rates)
        gradients = gradients_for(optimizer, step)
        adam_step(optimizer.state, gradients, optimizer.learning_rates, torch.ones(()), 1e-5)
        for name, group, layer in zip(rates, theirs.param_groups, reference, strict=True):
            group["lr"] = rates[name]
            flat = gradients[int(name)]
            weight, bias = layer.parameters()
            weight.grad, bias.grad = flat[: weight.numel()].view_as(weight), flat[weight.numel() :]
        theirs.step()
    for ours, expected in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)


def test_parameters_of_the_module_are_views_of_the_flat_vectors() -> None:
    module = two_layers()
    optimizer = Adam(module, groups_of(module), eps=1e-5)
    optimizer.state.parameters[1].fill_(7.0)
    assert module.get_parameter("1.weight").eq(7.0).all()
    assert not module.get_parameter("0.weight").eq(7.0).any()
    views = optimizer.views(optimizer.state.parameters)
    assert {name: view.shape for name, view in views.items()} == {n: p.shape for n, p in module.named_parameters()}


def test_a_disabled_step_changes_nothing_not_even_with_nan_gradients() -> None:
    module = two_layers()
    optimizer = Adam(module, groups_of(module), eps=1e-5)
    optimizer.set_learning_rates({"0": 1e-3, "1": 1e-3})
    before = optimizer.state.clone()
    broken = tuple(torch.full_like(flat, torch.nan) for flat in optimizer.state.parameters)
    adam_step(optimizer.state, broken, optimizer.learning_rates, torch.zeros(()), 1e-5)
    assert all(a.equal(b) for a, b in zip(before.tensors(), optimizer.state.tensors(), strict=True))


@pytest.mark.parametrize("condition", [True, False])
def test_restore_unless(condition: bool) -> None:
    module = two_layers()
    optimizer = Adam(module, groups_of(module), eps=1e-5)
    optimizer.set_learning_rates({"0": 1e-3, "1": 1e-3})
    backup = optimizer.state.clone()
    adam_step(optimizer.state, gradients_for(optimizer, 0), optimizer.learning_rates, torch.ones(()), 1e-5)
    restore_unless(torch.tensor(condition), optimizer.state.tensors(), backup.tensors())
    unchanged = [a.equal(b) for a, b in zip(backup.tensors(), optimizer.state.tensors(), strict=True)]
    assert not any(unchanged) if condition else all(unchanged)


def test_rates_are_written_in_place_and_stay_the_same_objects_across_a_load() -> None:
    module = two_layers()
    optimizer = Adam(module, groups_of(module), eps=1e-5)
    tensors = (*optimizer.learning_rates, *optimizer.state.tensors())
    optimizer.set_learning_rates({"0": 0.5, "1": 0.25})
    saved = optimizer.state_dict()
    optimizer.set_learning_rates({"0": 9.0, "1": 9.0})
    optimizer.load_state_dict(saved)
    now = (*optimizer.learning_rates, *optimizer.state.tensors())
    assert all(a is b for a, b in zip(tensors, now, strict=True))
    assert [rate.item() for rate in optimizer.learning_rates] == [0.5, 0.25]


def test_loading_what_does_not_fit_is_refused() -> None:
    module = two_layers()
    optimizer = Adam(module, groups_of(module), eps=1e-5)
    saved = optimizer.state_dict()
    with pytest.raises(ValueError, match="has groups"):
        optimizer.load_state_dict(saved | {"exp_avg": {"0": saved["exp_avg"]["0"]}})
    with pytest.raises(ValueError, match=r"exp_avg of group 0 has shape \[1\]; expected \[16\]"):
        optimizer.load_state_dict(saved | {"exp_avg": saved["exp_avg"] | {"0": torch.zeros(1)}})


def test_a_parameter_in_no_group_is_named() -> None:
    module = two_layers()
    groups = groups_of(module)
    del groups["1"]["1.bias"]
    with pytest.raises(ValueError, match=r"parameter 1\.bias is in no group"):
        Adam(module, groups, eps=1e-5)


def test_a_parameter_in_two_groups_is_named() -> None:
    module = two_layers()
    groups = groups_of(module)
    groups["0"]["1.bias"] = groups["1"]["1.bias"]
    with pytest.raises(ValueError, match=r"parameter 1\.bias is in 0 and 1"):
        Adam(module, groups, eps=1e-5)
