"""The settings of actor and critic, free of torch so that the command line answers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from esper.settings.options import Alias, Bounds, ConfigError, check_options, option
from esper.settings.values import Convertible
from esper.simic.nets.activations import ACTIVATIONS


class GivenActivation(Convertible):
    """An activation from Python: a callable, or its name in files."""

    expects = "a callable that makes a module"

    @classmethod
    def convert(cls, value: Any) -> Any:
        is_name = isinstance(value, str) and (value.startswith("<") or ":" in value)
        return value if callable(value) or is_name else None


if TYPE_CHECKING:
    Activation: TypeAlias = str | Callable[[], Any]
else:
    Activation = Literal[tuple(ACTIVATIONS)] | GivenActivation

# Beyond it a standard deviation, or its inverse squared, is infinite or 0 in float32.
_LOG_STD = Bounds(minimum=-40, maximum=40)
_COUNT = Bounds(minimum=1)
RNN_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Actor and critic: an encoder where there is one, and hidden layers; apart unless `shared_trunk`.

    `lstm_size` is an older name: `lstm_size=64` is `rnn="lstm", rnn_size=64`.
    """

    group: ClassVar[str] = "network"
    aliases: ClassVar[Mapping[str, Alias]] = {
        "lstm_size": Alias("rnn_size", {"rnn": "lstm"}, "the same as --rnn lstm --rnn-size")
    }

    encoder: str | Callable[..., Any] = option(
        "auto",
        "what is before the hidden layers: nature, impala or small convolutions, flatten, none, or module:callable, "
        "which gets the shape of an observation and returns a torch module; auto: none, but for images nature, for "
        "those below 36 pixels small",
    )
    hidden_sizes: tuple[int, ...] = option((64, 64), "widths of the hidden layers", bounds=_COUNT)
    actor_hidden_sizes: tuple[int, ...] | None = option(
        None, "those of the actor alone (default: hidden_sizes)", bounds=_COUNT
    )
    critic_hidden_sizes: tuple[int, ...] | None = option(
        None, "those of the critic alone (default: hidden_sizes)", bounds=_COUNT
    )
    activation: Activation = option("tanh", "activation of the hidden layers")
    layer_norm: bool = option(False, "layer normalization of each hidden layer, before its activation")
    rnn: Literal["lstm", "gru"] | None = option(
        None, "a recurrent layer after the hidden layers, lstm or gru, for a policy that remembers its episode"
    )
    rnn_size: int | None = option(None, f"units of the recurrent layer (default: {RNN_SIZE} with rnn)", bounds=_COUNT)
    shared_trunk: bool = option(False, "one trunk for policy and value; its rate is set by shared_lr")
    log_std_init: float = option(0.0, "initial log standard deviation of continuous actions", bounds=_LOG_STD)
    normalize_observations: bool = option(False, "scale observations by their running mean and deviation")
    lstm_size: InitVar[int | None] = None

    def __post_init__(self, lstm_size: int | None) -> None:
        if lstm_size is not None:
            if self.rnn is not None or self.rnn_size is not None:
                raise ConfigError("lstm_size", lstm_size, "says what rnn and rnn_size do; leave it out beside them")
            object.__setattr__(self, "rnn", "lstm")
            object.__setattr__(self, "rnn_size", lstm_size)
        check_options(self)
        if self.rnn is None and self.rnn_size is not None:
            raise ConfigError("rnn_size", self.rnn_size, "needs rnn (lstm or gru); without it this must be none")
        if self.rnn is not None and self.rnn_size is None:
            object.__setattr__(self, "rnn_size", RNN_SIZE)
        nothing = not self.hidden_sizes and self.rnn is None and self.encoder in ("auto", "none", "flatten")
        if self.shared_trunk and nothing:
            raise ConfigError("shared_trunk", True, "needs at least one hidden layer to share; hidden_sizes is empty")
        for name in ("actor_hidden_sizes", "critic_hidden_sizes"):
            sizes = getattr(self, name)
            if self.shared_trunk and sizes is not None:
                raise ConfigError(
                    name, sizes, "is for networks apart; with shared_trunk hidden_sizes are those of both"
                )

    def sizes_of_bodies(self) -> tuple[tuple[int, ...], ...]:
        """The widths of the hidden layers of the shared trunk, or of actor and critic."""
        if self.shared_trunk:
            return (self.hidden_sizes,)
        own = (self.actor_hidden_sizes, self.critic_hidden_sizes)
        return tuple(self.hidden_sizes if sizes is None else sizes for sizes in own)
