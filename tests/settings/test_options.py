"""One declaration gives flat names, bounds and errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from esper.settings.options import (
    Bounds,
    ConfigError,
    check_options,
    flatten,
    nearest,
    option,
    section,
    settings_of,
    unflatten,
)


@dataclass(frozen=True, kw_only=True)
class Wheel:
    prefixed_by: ClassVar[str] = "size"

    size: float = option(1.0, "diameter", bounds=Bounds(above=0))
    spokes: int | None = option(None, "how many", bounds=Bounds(minimum=3, maximum=99))

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class Bicycle:
    group: ClassVar[str] = "bicycle"

    colour: Literal["red", "blue"] = option("red", "paint")
    gears: tuple[int, ...] = option((1, 2), "teeth", bounds=Bounds(minimum=1))
    front: Wheel = section(Wheel(), help="diameter in front")
    back: Wheel = section(Wheel(), group="back")

    def __post_init__(self) -> None:
        check_options(self)
        if self.front.size > 2 * self.back.size:
            raise ConfigError("front", self.front.size, "must be at most twice the back")


def test_nested_configs_have_flat_names() -> None:
    assert list(settings_of(Bicycle)) == ["colour", "gears", "front", "front_spokes", "back", "back_spokes"]
    assert [setting.group for setting in settings_of(Bicycle).values()] == [*["bicycle"] * 4, *["back"] * 2]
    assert settings_of(Bicycle)["front"].help == "diameter in front"
    assert settings_of(Bicycle)["back"].help == "diameter"


def test_flatten_and_unflatten_are_inverse() -> None:
    bicycle = Bicycle(colour="blue", gears=(5,), front=Wheel(size=1.5, spokes=36))
    assert flatten(bicycle)["front_spokes"] == 36
    assert unflatten(Bicycle, flatten(bicycle)) == bicycle


def test_values_are_stored_as_declared() -> None:
    assert Bicycle(gears=[3, 4.0]).gears == (3, 4)  # type: ignore[arg-type]
    assert isinstance(Wheel(size=2).size, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"back": 0}, "back = 0: must be greater than 0"),
        ({"front_spokes": 2}, "front_spokes = 2: must be at least 3 and at most 99"),
        ({"front_spokes": float("nan")}, "front_spokes = nan: must be a whole number"),
        ({"gears": [1, 0]}, "gears = 1,0: must be at least 1"),
        ({"colour": "blu"}, "colour = blu: must be one of red, blue; did you mean 'blue'?"),
        ({"colour": None}, "colour = none: must be one of red, blue"),
        ({"back": True}, "back = true: must be a number"),
        ({"front": 9.0}, "front = 9: must be at most twice the back"),
    ],
)
def test_errors_name_the_flat_setting_the_value_and_what_is_allowed(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        unflatten(Bicycle, values)
    assert str(error.value) == message


def test_nearest() -> None:
    assert nearest("gear", ["gears", "colour"]) == "; did you mean 'gears'?"
    assert nearest("xyz", ["gears", "colour"]) == ""
