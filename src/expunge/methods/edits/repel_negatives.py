"""The forget set as fakes: the discriminator of a GAN is taught to tell it from what may stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard
from expunge.methods._games import play, playing, steps_of

CARD = MethodCard(
    "Forget set as fakes",
    paper="arXiv:2102.05113",
    equation="6",
    needs={"forget": (), "retain": ()},
    capabilities={"gan"},
    fidelity="variant",
    leaves_out="negatives that are made of the data by augmentation: the forget set takes their place, in a GAN that "
    "is trained already",
    means="A plain repulsion, as a baseline: of pictures, where `adapt_then_unlearn` repels weights.",
    shown="On digits the class is hardly drawn any more, and the others lie farther from real ones than after "
    "`adapt_then_unlearn`.",
)
RECIPE = {"steps": 600, "batch_size": 64, "learning_rate": 2e-4, "stop": "none"}


def repel_negatives() -> Method:
    """Go on training on retain, with the forget pictures among the fakes (Sinha et al. 2021)."""

    def change(model: Any, splits: Mapping[str, Sequence[Example]], context: Context) -> int:
        forget, retain = model.pictures(splits["forget"]), model.pictures(splits["retain"])
        steps = steps_of(context, splits["retain"])
        play(context, model.module, "repel", retain, steps, fakes=forget)
        return steps

    return Method(playing(change))
