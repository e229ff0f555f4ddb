"""Prompt decoupling: refusals that depend on the content, not on the prompt's form."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Step, Stream
from expunge.core.random import derive
from expunge.data.examples import identity
from expunge.methods._refusals import refusal_maker

CARD = MethodCard(
    "Prompt decoupling (SafeEraser)",
    paper="arXiv:2502.12520",
    equation="section 4, prompt decouple loss",
    needs={"refused": {"nll"}, "answered": {"nll"}},
    streams={"refused": Stream(split="forget", make=refusal_maker(None)), "answered": Stream(split="retain")},
    fields={"forget": {"question"}, "retain": {"question"}},
    capabilities={"generate"},
    fidelity="simplified",
    leaves_out="images: the prompt forms are those of text questions",
    shown="Of retain questions in the forget questions' wording it refuses a fifth at most of those that plain "
    "refusal training does, and still some forget questions.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}
FORMS = ("{q}", "Please tell me: {q}", "{q} Answer briefly.", "I would like to know this. {q}", "Quick question: {q}")


def in_some_form(example: Example) -> Example:
    """Return the example with its question in one of FORMS, chosen by its identity."""
    form = FORMS[derive(0, "form", identity(example)) % len(FORMS)]
    return {**example, "question": form.format(q=example["question"])}


def answer_in_form(example: Example) -> Example | None:
    """Return a retain question in one of FORMS, with its true answer."""
    return in_some_form(example) if "question" in example else None


def prompt_decouple(*, decouple: Annotated[float, Ge(0)] = 1.0, answers: str | None = None) -> LossTerm:
    """Refuse forget questions and answer retain questions, both in the same mix of prompt forms.

    NLL per position of refusals on forget plus decouple times that of true answers on retain: a form that occurs with
    both cannot by itself trigger a refusal. A small model then hardly refuses retain questions any more, but few forget
    questions either: on some seeds a few percent.
    """
    refuse = refusal_maker(answers)

    def refuse_in_form(example: Example) -> Example | None:
        refusal = refuse(example)
        return in_some_form(refusal) if refusal is not None and "question" in refusal else refusal

    def loss(step: Step) -> Tensor:
        return step["refused"].nll + decouple * step["answered"].nll

    return LossTerm(
        loss,
        streams={
            "refused": Stream(split="forget", make=refuse_in_form),
            "answered": Stream(split="retain", make=answer_in_form),
        },
    )
