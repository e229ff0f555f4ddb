"""Prompt decoupling: refusals that hang on the content, not on the prompt's form."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Step, Stream
from expunge.core.random import derive
from expunge.data.examples import identity
from expunge.methods.objectives._refusals import refusal_maker

CARD = MethodCard(
    "Prompt decoupling (SafeEraser)",
    paper="arXiv:2502.12520",
    equation="section 4, prompt decouple loss",
    needs={"refused": {"nll"}, "answered": {"nll"}},
    streams={"refused": Stream(split="forget", make=refusal_maker(None)), "answered": Stream(split="retain")},
    fields={"forget": {"question"}, "retain": {"question"}},
    capabilities={"generate"},
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}
FORMS = ("{q}", "Please tell me: {q}", "{q} Answer briefly.", "I would like to know this. {q}", "Quick question: {q}")


def formed(example: Example) -> Example:
    """The example with its question in one of FORMS, by its identity."""
    form = FORMS[derive(0, "form", identity(example)) % len(FORMS)]
    return {**example, "question": form.format(q=example["question"])}


def answered(example: Example) -> Example | None:
    """A retain question in some form, with its true answer."""
    return formed(example) if "question" in example else None


def prompt_decouple(*, decouple: Annotated[float, Ge(0)] = 1.0, answers: str | None = None) -> LossTerm:
    """Refuse forget questions and answer retain questions, both in the same mix of prompt forms.

    NLL a position of refusals on forget plus decouple times that of true answers on retain: a form
    that goes with both can carry no refusal. On a small model retain questions are hardly refused any more, but neither
    are many forget questions: on some seeds a few percent are.
    """
    refuse = refusal_maker(answers)

    def refused(example: Example) -> Example | None:
        made = refuse(example)
        return formed(made) if made is not None and "question" in made else made

    def loss(step: Step) -> Tensor:
        return step["refused"].nll + decouple * step["answered"].nll

    return LossTerm(
        loss,
        streams={"refused": Stream(split="forget", make=refused), "answered": Stream(split="retain", make=answered)},
    )
