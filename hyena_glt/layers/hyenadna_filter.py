"""The long filter of HyenaDNA (arXiv:2306.15794), so that its trained weights can be used.

h[lag] = MLP(features(lag)) * (exp(-|rate| * t) + shift), with t the lag over the trained length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.layers.lag_filter import LagFilter

FAST_DECAY, SLOW_DECAY, DECAY_TARGET = 0.3, 1.5, 1e-2
LOWEST_BAND = 1e-4


class HyenaDNAFilter(LagFilter):
    """A network of the lag over the trained length, with sine activations, under an exponential window.

    Args:
        channels: Channels, each with its own filter.
        hidden: Width of the network.
        num_features: Features of a lag, odd: t, and cosine and sine of `(num_features - 1) / 2` frequencies.
        max_length: Length it was trained for; there are no taps beyond it.
        num_inner_layers: Hidden layers between the first and the last.
        frequency: Starting frequency of the sine activations.
        shift: Constant added to the window.

    Raises:
        ConfigError: An even or too small `num_features`, or a `max_length` below 1.
    """

    def __init__(
        self,
        channels: int,
        hidden: int = 64,
        num_features: int = 5,
        max_length: int = 1024,
        *,
        num_inner_layers: int = 2,
        frequency: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__(channels)
        if num_features < 3 or num_features % 2 == 0:
            raise ConfigError(f"num_features: expected an odd number from 3, got {num_features}")
        if max_length < 1:
            raise ConfigError(f"max_length: expected at least 1, got {max_length}")
        self.max_length, self.shift = max_length, shift
        self.features = nn.Parameter(normalised_features(max_length, num_features))
        self.inner = nn.Linear(num_features, hidden)
        self.middle = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(num_inner_layers))
        self.outer = nn.Linear(hidden, channels, bias=False)
        self.frequency = nn.Parameter(torch.full((hidden,), frequency))
        slowest, fastest = (math.log(DECAY_TARGET) / share for share in (SLOW_DECAY, FAST_DECAY))
        self.rates = nn.Parameter(torch.linspace(slowest, fastest, channels))

    def extra_repr(self) -> str:
        """The numbers that are no weights."""
        return f"max_length={self.max_length}, shift={self.shift}"

    def blocks(self, length: int, size: int) -> Iterator[Tensor]:
        """`(size, min(length, max_length))` float32 at a time; the last hidden layer is shared."""
        length = min(length, self.max_length)
        with torch.autocast(self.rates.device.type, enabled=False):
            hidden = self.hidden(length).T
            times = normalised_times(self.max_length, self.rates.device)[:length]
        for weight, rates in zip(self.outer.weight.split(size), self.rates.split(size), strict=True):
            with torch.autocast(self.rates.device.type, enabled=False):
                window = (-rates.abs().unsqueeze(-1) * times).exp() + self.shift
                block = weight @ hidden * window
            yield block

    def hidden(self, length: int) -> Tensor:
        """The last hidden layer: `(length, hidden)`."""
        hidden = (self.frequency * self.inner(self.features[:length])).sin()
        for layer in self.middle:
            hidden = (self.frequency * layer(hidden)).sin()
        return hidden

    def reach(self) -> int:
        """`max_length`."""
        return self.max_length


def normalised_times(max_length: int, device: torch.device | None = None) -> Tensor:
    """0 to 1 in `max_length` steps: `(max_length,)`."""
    return torch.linspace(0, 1, max_length, device=device)


def normalised_features(max_length: int, num_features: int) -> Tensor:
    """What the network knows of a lag: t, cos and -sin of 2 pi f lag / max_length; `(max_length, num_features)`."""
    num_bands = (num_features - 1) // 2
    frequencies = torch.linspace(LOWEST_BAND, num_bands - 1, num_bands)
    angles = 2 * math.pi * torch.linspace(0, max_length - 1, max_length).unsqueeze(-1) / max_length * frequencies
    return torch.cat([normalised_times(max_length).unsqueeze(-1), angles.cos(), -angles.sin()], dim=-1)


def load_hyenadna_filter(
    state_dict: Mapping[str, Tensor], prefix: str = "", *, shift: float = 0.0
) -> tuple[HyenaDNAFilter, Tensor | None]:
    """Build the filter whose weights lie under `prefix` in a HyenaDNA state dict (its option `normalized` being off).

    Args:
        state_dict: Tensors by name, as in the published checkpoints.
        prefix: Such as `"backbone.layers.0.mixer.filter_fn."`.
        shift: `modulation.shift` of the model's configuration; no weight.

    Returns:
        The filter, and the `(channels,)` weight of the unfiltered signal, which a `HyenaOperator` calls `bypass`;
        None where the state dict has none.

    Raises:
        ModelFileError: A tensor is missing or does not fit the others.
    """
    layers = sorted(_layer_indices(state_dict, prefix))
    names = ["pos_emb.z", "modulation.deltas", *(f"implicit_filter.{index}.weight" for index in layers)]
    missing = [name for name in [*names, "implicit_filter.1.freq"] if prefix + name not in state_dict]
    if missing or len(layers) < 2:
        raise ModelFileError(f"{prefix}: expected a HyenaDNA filter, missing {', '.join(missing) or 'its layers'}")
    shared = [state_dict[name] for name in state_dict if name.startswith(prefix) and name.endswith(".freq")]
    if any(not torch.equal(frequency, shared[0]) for frequency in shared):
        raise ModelFileError(f"{prefix}: expected one frequency for all activations, got several")
    weights = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
    renamed = _renamed(weights, layers)
    taps = HyenaDNAFilter(
        channels=renamed["outer.weight"].shape[0],
        hidden=renamed["inner.weight"].shape[0],
        num_features=renamed["features"].shape[-1],
        max_length=renamed["features"].shape[0],
        num_inner_layers=len(layers) - 2,
        shift=shift,
    )
    try:
        taps.load_state_dict(renamed)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(f"{prefix}: tensors that do not fit a HyenaDNA filter: {reason}") from None
    bypass = weights.get("bias")
    return taps, None if bypass is None else bypass.flatten().clone()


def _layer_indices(state_dict: Mapping[str, Tensor], prefix: str) -> set[int]:
    """Places of the linear layers in the original's sequence, the activations between them left out."""
    start = f"{prefix}implicit_filter."
    places = (name.removeprefix(start).split(".") for name in state_dict if name.startswith(start))
    return {int(place[0]) for place in places if place[0].isdigit() and place[-1] == "weight"}


def _renamed(weights: Mapping[str, Tensor], layers: list[int]) -> dict[str, Tensor]:
    """This class's names; the original shares one frequency among its activations, stored under each of them."""
    names = ["inner", *(f"middle.{index}" for index in range(len(layers) - 2)), "outer"]
    renamed = {
        "features": weights["pos_emb.z"].flatten(0, -2),
        "rates": weights["modulation.deltas"].flatten(),
        "frequency": weights["implicit_filter.1.freq"].flatten(),
    }
    for name, place in zip(names, layers, strict=True):
        renamed[f"{name}.weight"] = weights[f"implicit_filter.{place}.weight"]
        bias = weights.get(f"implicit_filter.{place}.bias")
        renamed.update({} if bias is None else {f"{name}.bias": bias})
    return renamed
