"""Opens a model as it is to be used: with its guards, its adapters merged, on this machine's device."""

from __future__ import annotations

from pathlib import Path

from expunge.core.contracts import Model, Reporter
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.plan import Plan
from expunge.pipeline.worlds import build


def load(model: str | Path, *, trust_code: bool = False) -> Model:
    """The model in a folder (a run's `model/`, guards and ensembles included), or one by hub or builtin name.

    `load(folder).generate([{"question": "..."}])` answers as the model is meant to; a guarded folder opened with
    transformers alone is the bare model. Raises BadInput.
    """
    from expunge.models.open import open_model
    from expunge.pipeline.worlds import build

    source = str(model)
    return open_model(str(build(source)) if source.startswith("builtin:") else source, trust_code)


def opened(plan: Plan, reporter: Reporter) -> Model:
    """The model before the change; an embedded world's is built on first use."""
    source = plan.source
    if plan.builtin:
        source = str(build(plan.builtin, reporter))
        plan.manifest = read_manifest(Path(source))
    return open_model(source, plan.request.trust_code)
