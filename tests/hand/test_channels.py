"""The table of channels is the one that the classes follow: no field is missing on either side."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from expunge.core import channels
from expunge.core.contracts import Output, Reference, want_of
from expunge.evaluation.reading import TAKEN
from expunge.evaluation.readout import Readout
from expunge.models import logits


def names(of: type) -> set[str]:
    return {field.name for field in fields(of)}  # type: ignore[arg-type]


def test_outputs_references_and_readouts_hold_what_the_table_says_and_no_more() -> None:
    beside = {"n_B", "labels_BT", "mask_BT", "hidden", "own", "reference", "examples", "positions", "rows", "indices"}
    assert names(Output) - beside == set(channels.OUTPUT)
    assert names(Reference) - {"hidden"} == set(channels.ORIGIN)
    held = {field for channel in channels.CHANNELS.values() for field in channel.readout}
    assert (
        names(Readout) - {"split", "role", "family", "examples", "ends_N", "known_N", "pooled", "own", "remark", "cut"}
        == held
    )
    assert len(held) == len(channels.ARRAYS + channels.RAGGED + channels.TEXTS), "no field belongs to two channels"


@pytest.mark.parametrize("channel", [c for c in channels.CHANNELS.values() if c.output], ids=lambda c: str(c.name))
def test_a_forward_gives_the_fields_of_each_channel_and_those_of_no_other(channel: channels.Channel) -> None:
    found = logits.fields(logits.measure_NV(torch.zeros(3, 5), torch.tensor([0, 1, 2]), want_of({channel.name})))
    assert set(found) - {"logp_BT"} == set(channel.output) - {"nll_B", "logp_BT"}
    assert "logp_BT" in found, "it is there in any case: the NLL is its sum"


def test_ragged_fields_are_taken_from_the_channels_own_outputs() -> None:
    assert TAKEN == {"logp": "logp_BT", "argmax": "argmax_BT", "mu": "mu_BT", "sigma": "sigma_BT"}
    with pytest.raises(ValueError, match="unknown channel 'generation'"):
        want_of({"generation"})
