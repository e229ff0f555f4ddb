"""The choice of `method: auto`: an exact scheme, a retraining, or the first ladder that suits model and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.splits import Splits
from expunge.methods.auto import COST, NAME, Ladder, ladders, options_of
from expunge.methods.compose import Composed, compose
from expunge.models.manifest import retraining_tokens
from expunge.pipeline.compatibility import fits_history, fits_method, has_weights

RETRAIN = "retrain"
DEEPER = ("forget", "privacy", "robustness")
"""First words of the criteria that read more of the forget set than its answers, unless they are a ROUGE."""


def choose(request: Request, model: Model, splits: Splits, manifest: Mapping[str, Any] | None = None) -> Ladder:
    """The ladder of a request. Raises BadInput where its options are faulty or nothing suits model, data and training.

    manifest: of the model's training, which some methods begin again.
    """
    options = options_of(request.method)
    if options.cost is None:
        options = options.model_copy(update={"cost": COST[request.purpose]})
    schemes = sorted(name.partition(":")[2] for name in model.capabilities if name.startswith("exact:"))
    if schemes:
        return Ladder((schemes[0],), 0, f"the model was trained for exact deletion by {schemes[0]}", options=options)
    if not has_weights(model):
        return Ladder((RETRAIN,), 0, "the model has no weights that steps could change", options=options)
    faults = ["no ladder was measured for it"]
    words_alone = all("rouge" in line or not line.startswith(DEEPER) for line in request.accept)
    named = _kinds_of(request, manifest)
    own = Ladder(options.rungs, options.start, "these are the request's own rungs")
    for ladder in [own] if options.rungs else ladders(request.purpose):
        if not ladder.needs <= model.capabilities or ladder.examples not in named:
            continue
        if ladder is not own and RETRAIN in ladder.rungs and not options.exact:
            continue
        if ladder.judged == "answers" and not words_alone:
            continue
        try:
            for rung in ladder.rungs:
                composed = compose(rung, has_retain="retain" in splits)
                fits_method(composed, model, splits)
                if ladder is not own:  # a request's own rungs are refused by name, in the plan
                    fits_history(composed, model, splits, manifest)
        except BadInput as error:
            faults += error.faults
        else:
            return replace(ladder, options=options)
    raise BadInput.of("method", NAME, f"finds no method that suits ({faults[-1]})", "name one: expunge list methods")


def _kinds_of(request: Request, manifest: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The kinds of request, of `Ladder.examples`, that this one is of."""
    forget = request.forget if isinstance(request.forget, Mapping) else {}
    if {"class", "concept"} & set(forget):
        return "any", "class"
    return ("any", "client", "single") if set(forget) == {"client"} and _has_clients(manifest) else ("any", "single")


def _has_clients(manifest: Mapping[str, Any] | None) -> bool:
    return "federation" in ((manifest or {}).get("trainer") or {})


def cheaper_exactly(ladder: Ladder, tokens: int, manifest: Mapping[str, Any] | None, splits: Splits) -> Ladder | None:
    """Retraining in the ladder's place, where the request allows its cost or a first trial takes no fewer tokens.

    tokens: of the first trial. None where the ladder stays.
    """
    whole = retraining_tokens(manifest, splits)
    if whole is None or not ladder.options.exact or ladder.rungs == (RETRAIN,):
        return None
    why = f"retraining takes about {whole:,} tokens, "
    if ladder.options.cost is not None and ladder.options.cost >= 1:
        why += "which auto.cost allows, and nothing comes nearer to gold"
    elif whole <= tokens:
        why += f"and a first trial would take {tokens:,}"
    else:
        return None
    return Ladder((RETRAIN,), 0, why, options=ladder.options)


def pooled_remarks(composed: Composed, manifest: Mapping[str, Any] | None) -> list[str]:
    """Of a model that a federation trained: that the method, which no client takes part in, reads all their rows."""
    apart = any(plugin.kind in ("federated", "exact") for plugin in composed.plugins)
    if apart or not _has_clients(manifest):
        return []
    return [
        f"A federation trained the model, and {composed.name} reads the rows of all clients in one place; "
        "erase_client, federaser and distil_others leave them where they lie."
    ]
