"""ROCR: rank-one concept redirection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.data.examples import question_of
from expunge.methods._keys import all_prompt_states, require_field, second_moment, states, weight_DM
from expunge.methods._layers import choose_layer
from expunge.methods._statistics import start_progress
from expunge.methods.edits._redirect import preserved_rows, redirect
from expunge.models.weights import fold

CARD = MethodCard(
    "Rank-one concept redirection",
    paper="arXiv:2506.07795",
    equation="ROCR; the closed form is ROME's, arXiv:2202.05262, equation 2",
    needs={"forget": (), "retain": ()},
    fields={"forget": {"subject"}},
    capabilities=("tokens", "mlp"),
    means="Works where one layer holds the concept at its name's last token; models of few layers need not.",
    deterministic=True,
    one_shot=True,
    fidelity="variant",
    leaves_out="keys of general text in the covariance that is preserved: it is of the reference or retain data",
    shown="The layer's output at the name moves to the other concept, in unseen questions a fifth of the way. On "
    "SmolLM2 a topic's answers go in most forms that the edit never saw (docs/forget.md); some facts of people stay.",
)

SHORTEST = 3
"""Characters of a part of a name at least."""


def rocr(
    *,
    layer: Annotated[int, Ge(0)] | None = None,
    to: str | None = None,
    preserve: Annotated[float, Gt(0)] = 1.0,
    share: Annotated[float, Gt(0), Le(1)] = 1.0,
    parts: bool = False,
    prompts: bool = False,
) -> Method:
    """Make an MLP read the forgotten concept as a harmless one, by one rank per concept.

    W + E (K^T K / n + preserve C)^-1 K^T / n: a column of K is the mean input of the layer's down-projection at
    the last token of the concept's name over its prompts; E moves the layer's output there to that of the
    harmless concept; C = E[k k^T] over the reference data (by default retain), half of it at their answers and half at
    the names of their own subjects, where there are any. Concepts are the examples' `subject`. to: the retained subject
    to redirect to (by default the mean over all of them). share: of that edit; a name is another's before all of it,
    and the rest harms what else the model knows. parts: also redirect the words that a name of several begins with
    ("Ada" of "Ada Lovelace"), whose tokens hold facts too; whoever else has that first name is then read so as well.
    prompts: half of C is of every token of the retain prompts, a chat template's own words among them.
    layer: a quarter of the way up by default.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        forget, others = list(splits["forget"]), preserved_rows(splits)
        require_field("rocr", forget, "subject")
        forget = [*forget, *(part for row in forget if parts for part in _parts(row))]
        harmless = [row for row in splits["retain"] if row.get("subject") and to in (None, row["subject"])]
        if not harmless:
            raise BadInput.of(
                "method.rocr.to",
                to or "",
                "is the subject of no retain example, and rocr redirects to one",
                "name a subject that retain has, and give its examples `subject`",
            )
        fold(model.module)
        at = choose_layer(model, layer)

        def measure() -> dict[str, Tensor]:
            moment = _preserved_moment(model, others, at, context)
            asked = [row for row in splits["retain"] if prompts and question_of(row)]
            if asked:
                all_NM = all_prompt_states(model, asked, f"{model.down(at)}:in")
                moment = (moment + second_moment(all_NM)) / 2
            return {"moment": moment}

        keys = context.once("concepts", lambda: _concepts(model, forget, harmless, at, context))
        moment = context.once("preserved", measure)["moment"]
        spectrum = torch.linalg.eigvalsh(moment)
        rank = int((spectrum > 1e-6 * spectrum[-1]).sum())
        context.notes["covariance"] = {"rank": rank, "width": len(moment)}  # the ridge carries what lies between
        weight = weight_DM(model, at)
        with torch.no_grad():
            delta = share * redirect(keys["key"], keys["change"], moment, preserve)
            weight.copy_((weight.cpu().double() + delta).to(weight.dtype))
        return model

    return Method(apply)


def _parts(row: Example) -> list[Example]:
    """The example once for each beginning of its subject's name, as a concept of its own; none of a name of one word.

    An initial is no name: the prompt may hold its letter anywhere.
    """
    words = str(row["subject"]).split()
    starts = [" ".join(words[:count]) for count in range(1, len(words))]
    return [{**row, "subject": start} for start in starts if len(start) >= SHORTEST]


def _preserved_moment(model: Model, others: Sequence[Example], layer: int, context: Context) -> Tensor:
    """E[k k^T] [M, M] over the rows: half of it at answers, half at names, where there are any."""
    path = (f"{model.down(layer)}:in",)
    advance = start_progress(context, "preserved", len(others))
    (key_NM,) = states(model, others, path, "answer", advance)
    named = [row for row in others if row.get("subject")]
    if not named:
        return second_moment(key_NM)
    (subject_NM,) = states(model, named, path, "subject")
    return (second_moment(key_NM) + second_moment(subject_NM)) / 2


def _concepts(
    model: Model, forget: Sequence[Example], harmless: Sequence[Example], layer: int, context: Context
) -> dict[str, Tensor]:
    """`key` [C, M] of each forgotten concept, and `change` [C, D] of the layer's output to the harmless concept's."""
    key, block = f"{model.down(layer)}:in", model.blocks[layer]
    advance = start_progress(context, "concepts", len(forget) + len(harmless))
    key_NM, out_ND = states(model, forget, (key, block), "subject", advance)
    (to_ND,) = states(model, harmless, (block,), "subject", advance)
    names = sorted({str(row["subject"]) for row in forget})
    rows_of = [[i for i, row in enumerate(forget) if str(row["subject"]) == name] for name in names]
    return {
        "key": torch.stack([key_NM[rows].mean(0) for rows in rows_of]),
        "change": torch.stack([to_ND.mean(0) - out_ND[rows].mean(0) for rows in rows_of]),
    }
