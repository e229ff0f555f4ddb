"""The table of channels: what may be asked of a model, and where an Output, a Reference and a Readout keep the answer.

A new channel is a line here, a field in each class that the line names, and what a forward makes of it
(`models/logits.measure_NV`). A family adds channels of its own with `add`: values per example, which an Output and a
Readout keep under the channel's name in `own`. Two need no line, since they are by module path: `hidden:PATH` of a
forward and `pooled:PATH` of a reading.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One channel. words: what its values are called, in the plural; unit: theirs.

    output: fields of an Output; `_B` in a name is per example, `_BT` per example and position. origin: does an Origin
    hold it too, in fields of the same names. arrays, ragged, texts: fields of a Readout, which are arrays over the
    examples, lists of an array each (in the order of `output` where a forward gives them), or lists of a text each.
    """

    name: str
    words: str
    unit: str
    output: tuple[str, ...] = ()
    reference: bool = False
    arrays: tuple[str, ...] = ()
    ragged: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def readout(self) -> tuple[str, ...]:
        """All fields of a Readout."""
        return self.arrays + self.ragged + self.texts


CHANNELS: dict[str, Channel] = {
    channel.name: channel
    for channel in (
        Channel(name="nll", words="losses", unit="nats", output=("nll_B",), reference=True, arrays=("nll_N", "n_N")),
        Channel(
            name="logp",
            words="token log-probabilities",
            unit="nats",
            output=("logp_BT",),
            reference=True,
            ragged=("logp",),
        ),
        Channel(
            name="logits",
            words="class log-probabilities",
            unit="nats",
            output=("logits_BTV",),
            arrays=("logp_NC", "labels_N"),
        ),
        Channel(
            name="topk",
            words="likeliest tokens",
            unit="nats",
            output=("index_BTK", "top_BTK", "rest_BT"),
            reference=True,
        ),
        Channel(name="argmax", words="argmax hits", unit="share", output=("argmax_BT",), ragged=("argmax",)),
        Channel(
            name="moments",
            words="moments of the token distributions",
            unit="nats",
            output=("mu_BT", "sigma_BT"),
            ragged=("mu", "sigma"),
        ),
        Channel(name="variants", words="losses of answer variants", unit="nats", ragged=("paraphrased", "perturbed")),
        Channel(name="generation", words="generations", unit="text", texts=("texts", "answers")),
    )
}

OWN: dict[str, Channel] = {}
"""Channels that families added."""

FORWARD = tuple(name for name, channel in CHANNELS.items() if channel.output)
"""What a forward can be asked for."""
READ = frozenset(name for name, channel in CHANNELS.items() if channel.readout)
"""What a reading can be asked for."""
OUTPUT = tuple(field for channel in CHANNELS.values() for field in channel.output)
TIMED = tuple(field for field in OUTPUT if "_BT" in field)
"""Fields of an Output that have positions."""
ORIGIN = tuple(field for channel in CHANNELS.values() if channel.reference for field in channel.output)
ARRAYS = tuple(field for channel in CHANNELS.values() for field in channel.arrays)
RAGGED = tuple(field for channel in CHANNELS.values() for field in channel.ragged)
TEXTS = tuple(field for channel in CHANNELS.values() for field in channel.texts)


def add(channel: Channel) -> None:
    """Makes a family's own channel known. Raises ValueError where another has its name."""
    if channel.name in CHANNELS or OWN.get(channel.name, channel) != channel:
        raise ValueError(f"channel {channel.name!r} is already defined")
    OWN[channel.name] = channel


def words_of(name: str) -> str:
    """The name of a channel's values, in the plural."""
    found = CHANNELS.get(name) or OWN.get(name)
    return found.words if found else name
