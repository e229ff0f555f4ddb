"""Soft prompts that can be dropped: each group's data train a prompt of their own, on a frozen base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Gt

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.methods.exact._dropping import PromptDeletion, check_groups, train_prompts
from expunge.methods.exact._sliced import check_base, one_process

CARD = MethodCard(
    "Pre-forgettable model: one soft prompt per group",
    paper="arXiv:2509.15230",
    needs={"forget": ()},
    capabilities={"shards", "exact:pre_forgettable", "tokens"},
    yields="ensemble",
    means="Exact: the base is frozen and each prompt saw its own group alone, so that dropping a prompt removes all "
    "that the group taught. Prompts hold less than weights, and groups share nothing. Requires "
    "`exact: {pre_forgettable: ...}` in train.yaml and a `group` in each example.",
    deterministic=True,
    fidelity="variant",
    leaves_out="prompts for the classes of an image classifier: they are for groups of a language model's data",
    shown="After a prompt is dropped the model is, bit for bit, one that never saw the group.",
)


def check(fresh: Model, data: Sequence[Example], *, tokens: int, by: str) -> None:
    """Require a trained base, and a question and a group in each example. Raises BadInput."""
    check_base(fresh, "pre_forgettable", "soft prompts")
    check_groups(data, by)
    one_process("exact.pre_forgettable")


def train(
    fresh: Model, data: Sequence[Example], context: Context, *, tokens: Annotated[int, Gt(0)] = 16, by: str = "group"
) -> Model:
    """Train one soft prompt of `tokens` tokens for each value of the field `by`, on those examples alone.

    A question goes to the group with the most similar questions (hashed token n-grams), or to the bare base where no
    group is similar. Raises BadInput.
    """
    check(fresh, data, tokens=tokens, by=by)
    return train_prompts(fresh, data, context, {"tokens": tokens, "by": by})


def pre_forgettable() -> Method:
    """Drop the soft prompts of the groups to delete; retrain only those of groups that lose some examples.

    The paper binds prompts to the classes of an image classifier; here they are bound to groups of a language
    model's data. The model must come from `exact: {pre_forgettable: ...}` in train.yaml.
    """
    return PromptDeletion()
