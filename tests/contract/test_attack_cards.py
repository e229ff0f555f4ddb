"""The contract of every attack, from its card alone."""

from __future__ import annotations

import pytest

from expunge.core.registry import everything
from expunge.evaluation import attack as attacking
from expunge.evaluation.scores import SIDES, UNITS

ATTACKS = everything("attacks")
ABILITIES = (
    "the texts alone",
    "query access",
    "logits",
    "embeddings",
    "hidden states",
    "gradients",
    "weights",
    "fine-tuning with other data",
    "fine-tuning with part of the forget set",
)
"""The first words of an adversary, from the weakest on."""


@pytest.mark.parametrize("plugin", ATTACKS, ids=[plugin.name for plugin in ATTACKS])
def test_every_attack_names_its_adversary(plugin: attacking.registry.Plugin[attacking.AttackCard]) -> None:
    """In one short line of abilities, without which nobody can say against whom a verdict holds."""
    card = plugin.card
    assert card.adversary.startswith(ABILITIES) and len(card.adversary) <= 80 and not card.adversary.endswith(".")
    assert card.means and card.side in SIDES and card.unit in UNITS and card.better in ("gold", "lower", "higher")
    assert card.level in ("", "standard", "deep") and card.passes >= 0
    assert {"forget", "probes"} & {name.rpartition(".")[2] for name in card.needs}, "it attacks the forget set"
    assert not card.no_control or card.level, "arithmetic on readouts costs nothing on the model before the change"
