"""Unified concept editing: a closed form on the layers that read the text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput

CARD = MethodCard(
    "Unified concept editing",
    paper="arXiv:2308.14761",
    equation="7",
    needs={"forget": (), "retain": ()},
    capabilities={"prompts"},
    fidelity="simplified",
    leaves_out="prompts that were written for the purpose: those of the request serve",
    means="It changes how a prompt is read and none of what draws: whoever learns new words reaches it. Where the text "
    "encoder has few dimensions, as on small models, the others' words span the concept's: how much is taken depends "
    "on the model, from four fifths to nothing, and the others lose 2 to 18 points.",
    deterministic=True,
    one_shot=True,
)
READERS = ("attn2.to_k", "attn2.to_v")
"""Ends of the paths of a U-Net's layers that read the text, in diffusers."""


def uce(*, guide: str = "", strength: Annotated[float, Gt(0)] = 0.5, weight: Annotated[float, Gt(0)] = 1.0) -> Method:
    """Let the concept's words be read as the guide's, and all other prompts as before (Gandikota et al. 2024).

    W = (strength W0 + weight sum W0 v c^T + sum W0 p p^T) (strength I + weight sum c c^T + sum p p^T)^-1, of each key
    and value layer that reads the text: c the states of the forget prompts' last words, v that of the guide's (by
    default of no words, at the same places), p the states of the retain prompts' last words. strength: of the pull to
    W0; weight: of the concept against the others.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        bare: Any = model
        root = weight**0.5
        asked, kept = ([bare.condition(row) for row in splits[name]] for name in ("forget", "retain"))
        concept_MD, target_MD, kept_PD = states_of(bare, asked, kept, bare.tokens(guide))
        readers = [layer for path, layer in bare.module.named_modules() if path.endswith(READERS)]
        if not readers:
            why = f"edits the layers {' and '.join(READERS)}, and the model has none"
            raise BadInput.of("method", "uce", why, "choose another method")
        with torch.no_grad():
            for layer in readers:
                layer.weight.copy_(edit_weight(layer.weight, root * concept_MD, root * target_MD, kept_PD, strength))
        return model

    return Method(apply)


@torch.no_grad()
def states_of(
    bare: Any, asked: Sequence[Tensor], kept: Sequence[Tensor], guide_L: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(states of the concept's last words [M, D], what they become [M, D], of the others' last words [P, D]).

    asked, kept: tokens [L] of prompts. A forget prompt whose words a retain prompt begins with is left out. Raises
    BadInput where none is left: the edit would be the identity.
    """
    forget_NL = torch.stack(list({tuple(tokens.tolist()): tokens for tokens in asked}.values()))
    retain_NL = torch.stack(list({tuple(tokens.tolist()): tokens for tokens in kept}.values()))
    forget_NLD, retain_NLD, (guide_LD,) = (
        bare.module.states(tokens) for tokens in (forget_NL, retain_NL, guide_L[None])
    )
    special = set(bare.tokenizer.all_special_ids)
    known = {tuple(tokens[: i + 1].tolist()) for tokens in kept for i in range(len(tokens))}
    rows = [(row, last_word(tokens, special)) for row, tokens in enumerate(forget_NL.tolist())]
    own = [(row, place) for row, place in rows if tuple(forget_NL[row, : place + 1].tolist()) not in known]
    if not own:
        why = "has the words of retain's prompts alone, so that nothing would change"
        raise BadInput.of("forget", "the concept", why, "forget another concept, or choose another method")
    places = [place for _, place in own]
    concept_MD = forget_NLD[[row for row, _ in own], places]
    others = [last_word(tokens, special) for tokens in retain_NL.tolist()]
    guide = guide_L.tolist()
    if not special.issuperset(guide):
        places = [last_word(guide, special)] * len(own)
    return concept_MD, guide_LD[places], retain_NLD[list(range(len(others))), others]


def last_word(tokens: Sequence[int], special: Collection[int]) -> int:
    """The place of the last token that is no special one; 0 where there is none."""
    return max((place for place, token in enumerate(tokens) if token not in special), default=0)


def edit_weight(weight: Tensor, concept_MD: Tensor, target_MD: Tensor, kept_PD: Tensor, strength: float) -> Tensor:
    """The layer's new weight [E, D], in the old one's type."""
    before, c, v, p = (x.double() for x in (weight, concept_MD, target_MD, kept_PD))
    left = strength * before + before @ v.T @ c + before @ p.T @ p
    right = strength * torch.eye(c.shape[1], dtype=torch.double) + c.T @ c + p.T @ p
    return torch.linalg.solve(right, left.T).T.to(weight.dtype)
