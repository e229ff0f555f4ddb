"""Soft prompts that can be dropped: each group's data teach a prompt of its own, on a frozen base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Gt

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.methods.exact._dropping import PromptDeletion, check_groups, train_prompts
from expunge.methods.exact._sliced import check_base, one_process

CARD = MethodCard(
    "Pre-forgettable model: a soft prompt a group",
    paper="arXiv:2509.15230",
    needs={"forget": ()},
    capabilities={"shards", "exact:pre_forgettable", "tokens"},
    yields="ensemble",
    means="Exact: the base is frozen and each prompt saw its own group alone, so that a dropped prompt takes all that the "
    "group taught. Prompts hold less than weights do, and groups teach each other nothing. It wants "
    "`exact: {pre_forgettable: ...}` in train.yaml and a `group` in each example.",
    deterministic=True,
)


def check(fresh: Model, data: Sequence[Example], *, tokens: int, by: str) -> None:
    """Has the model a trained base, and each example a question and a group. Raises BadInput."""
    check_base(fresh, "pre_forgettable", "soft prompts")
    check_groups(data, by)
    one_process("exact.pre_forgettable")


def train(
    fresh: Model, data: Sequence[Example], context: Context, *, tokens: Annotated[int, Gt(0)] = 16, by: str = "group"
) -> Model:
    """One soft prompt of `tokens` tokens for each value of the field `by`, trained on those examples alone.

    A question is sent to the group whose questions it is likest to (hashed token n-grams), and to the bare
    base where it is like none. Raises BadInput.
    """
    check(fresh, data, tokens=tokens, by=by)
    return train_prompts(fresh, data, context, {"tokens": tokens, "by": by})


def pre_forgettable() -> Method:
    """Drop the soft prompts of the groups that go; train again, alone, those that lose some examples only.

    The paper binds prompts to the classes of an image classifier; here they are bound to groups of a language
    model's data. The model must come from `exact: {pre_forgettable: ...}` in train.yaml.
    """
    return PromptDeletion()
