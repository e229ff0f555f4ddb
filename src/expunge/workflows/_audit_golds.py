"""The gold models of an audit: given, kept in the cache, or retrained where that is cheap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from expunge.core.audit_request import AuditRequest
from expunge.core.contracts import Model
from expunge.data.splits import Splits
from expunge.data.worlds import is_builtin
from expunge.ledger.evidence import SECOND_GOLD
from expunge.models.manifest import manifest_of
from expunge.pipeline.gold import CHEAP, retraining_cost, retraining_fault, second_source

NO_GOLD = "No gold model was given: how a model that never saw the data would score is not known."


@dataclass(frozen=True)
class AuditGolds:
    """sources: role -> a folder, or "train". why: sentences on a gold model that is absent."""

    sources: Mapping[str, str]
    why: tuple[str, ...] = ()


def gold_models(request: AuditRequest, splits: Splits, folder: str, model: Model) -> AuditGolds:
    """The gold models that the request asks for. folder, model: the model whose training would be repeated.

    That is the model before the change, or the audited one where it is still as it was trained.
    """
    if request.golds:
        return AuditGolds(request.golds)
    if request.gold == "none":
        return AuditGolds({}, (NO_GOLD,))
    manifest, small = manifest_of(folder), is_builtin(request.before or request.model)
    fault = retraining_fault(manifest, splits["forget"], request.trust_code, model)
    if not fault and request.gold == "auto":
        assert manifest is not None
        cheap, cost = retraining_cost(manifest, splits["forget"], small=small)
        if not cheap:
            fault = f"no gold model: a retraining may take more than {CHEAP:.0f} s ({cost}); gold: one asks for it"
    if fault:
        return AuditGolds({}, (NO_GOLD, fault))
    second, why = second_source(request.gold, manifest, splits, "train", small=small)
    if not second:
        return AuditGolds({"gold": "train"}, (f"no second gold model: {why}",))
    return AuditGolds({"gold": "train", SECOND_GOLD: second})
