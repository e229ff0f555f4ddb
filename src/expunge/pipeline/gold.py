"""The gold model: trained as the base was, without the forget set; kept in the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from expunge.alignment.spec import on_refusals
from expunge.core import cache, processes
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput
from expunge.core.files import delete, digest, sweep
from expunge.core.request import Request
from expunge.core.train_config import TrainConfig
from expunge.data.examples import identity
from expunge.data.splits import Splits
from expunge.models.build import again, budget_of, check_again, training_data
from expunge.models.manifest import MANIFEST
from expunge.models.open import check, open_on_cpu, trusted
from expunge.pipeline.train import account_of, lineage_of, scheme_of, start, write
from expunge.training import checkpoint


def gold_entry(manifest: dict[str, Any], forget: Sequence[Example]) -> str:
    """The cache's name of the gold model of this training and forget set."""
    lineage = {k: v for k, v in manifest.items() if k not in ("seconds", "tokens", "python", "steps")}
    return f"gold/{digest([lineage, sorted(identity(row) for row in forget)])[:32]}"


def gold_folder(manifest: dict[str, Any], forget: Sequence[Example]) -> Path:
    """The folder of the gold model of this training and forget set, in the cache."""
    return cache.path_of(gold_entry(manifest, forget))


def gold(manifest: dict[str, Any], forget: Sequence[Example], base: Model, reporter: Reporter | None = None) -> Path:
    """The folder of the gold model: trained as the base was, without forget; cached.

    base lends its tokenizer; its weights are not touched. Raises BadInput where the training data
    moved or changed.
    """
    folder = gold_folder(manifest, forget)
    cache.note(gold_entry(manifest, forget))
    cache.make_folder("gold")
    # Two runs may want the same gold at once; the processes of one run train it together.
    with FileLock(folder.with_suffix(".lock")) if processes.world() == 1 else contextlib.nullcontext():
        if processes.main():
            for name in (
                folder.name,
                _gold_work(folder).name,
            ):  # where gold is finished, too: scratch may be half deleted
                sweep(folder.parent, name)
        if not cache.whole(folder):
            if processes.main():
                delete(folder)
            processes.barrier()
            _train_gold(manifest, forget, base, folder, reporter or Silent())
        checkpoint.clear(_gold_work(folder))
    return folder


def gold_ahead(config: TrainConfig, forget: Sequence[Example]) -> Path:
    """The gold model of a base that `config` will train, or is training now: neither needs the other."""
    model, data = start(config)
    return gold(lineage_of(config, data, model), forget, model)


def _train_gold(
    manifest: dict[str, Any], forget: Sequence[Example], base: Model, folder: Path, reporter: Reporter
) -> None:
    data = training_data(manifest, forget, trusted(base))
    model = again(manifest, base)
    model.module.to(processes.device())
    context = Context(budget_of(manifest), _gold_work(folder), int(manifest["seed"]), "gold", reporter=reporter)
    # The base's own stage, so that its batches differ from the base's by the data alone.
    context.stage = context.label = "train"
    trained = scheme_of(manifest.get("exact"))(model, data, context)
    own = {"hashes": [identity(row)[:16] for row in data], "data": None}
    write(trained, folder, {**manifest, **own, **account_of(context.notes["outcome"])})


def _gold_work(folder: Path) -> Path:
    return folder.with_name(folder.name + ".training")


def gold_source(
    request: Request, manifest: dict[str, Any] | None, splits: Splits, model: Model | None
) -> tuple[str, str]:
    """(how to get gold, why there is none)."""
    if request.gold == "none":
        return "", "gold: none was asked for"
    if request.gold == "auto" and on_refusals(request):
        return "", "no gold model: one that was never taught the refusals was not taught what to say instead"
    if request.gold != "auto":
        check(request.gold, request.trust_code, field="gold")
        if isinstance(request.model, str) and Path(request.gold).resolve() == Path(request.model).resolve():
            raise BadInput.of(
                "gold", request.gold, "is the model itself", "give a model retrained without the forget set"
            )
        try:
            open_on_cpu(request.gold, trust_code=request.trust_code, meta=True)
        except BadInput as error:
            raise BadInput(*(fault.replace("model:", "gold:", 1) for fault in error.faults)) from None
        return request.gold, ""
    if not manifest:
        return "", f"no gold model: the model has no training manifest ({MANIFEST})"
    if "forget" not in splits:
        return "", ""
    if "budget" not in manifest:  # an embedded world that is not built yet
        return "train", ""
    try:
        training_data(manifest, splits["forget"], request.trust_code)
        if model is not None:
            check_again(manifest, model)
    except BadInput as error:
        return "", f"no gold model: {error.faults[0]}"
    return "train", ""
