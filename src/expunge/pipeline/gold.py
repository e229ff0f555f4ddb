"""The gold model: trained as the base was, without the forget set; kept in the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from expunge.alignment.spec import on_refusals
from expunge.core import cache, processes
from expunge.core.budget import batch_size
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput
from expunge.core.files import delete, digest, sweep
from expunge.core.request import Request
from expunge.core.train_config import TrainConfig
from expunge.data.content import content_key, content_keys
from expunge.data.examples import identity
from expunge.data.splits import Splits
from expunge.methods.training import check_homes, homes_of, runs_distributed, trainer_for, with_defaults
from expunge.models.build import again, budget_of, check_again, training_data
from expunge.models.manifest import MANIFEST
from expunge.models.open import check, open_on_cpu
from expunge.pipeline.estimate import training_interval
from expunge.pipeline.train import account_of, bound, lineage_of, start, write
from expunge.training import checkpoint

ACCOUNT = ("seconds", "tokens", "passes", "python", "steps", "machine", "precision", "contents", "federation")
"""Fields of a manifest that do not say what was trained."""
CHEAP = 120.0
"""Seconds that a further training without the forget set may take without being asked for."""


def gold_entry(manifest: dict[str, Any], forget: Sequence[Example]) -> str:
    """The cache's name of the gold model of this training and forget set."""
    lineage = {k: v for k, v in manifest.items() if k not in ACCOUNT}
    names = sorted(identity(row) for row in forget)
    # Rows that the training had in another form: earlier versions left them in, under the name without this mark.
    known = set(manifest.get("hashes") or [])
    other_form = ["by content"] if any(name[:16] not in known for name in names) else []
    return f"gold/{digest([lineage, names, *other_form])[:32]}"


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
            chosen, said = manifest.get("exact") or manifest.get("trainer"), reporter or Silent()
            if runs_distributed(chosen, base):
                _train_gold(manifest, forget, base, folder, said)
            else:
                processes.from_first(lambda: _train_gold(manifest, forget, base, folder, said))
        checkpoint.clear(_gold_work(folder))
    return folder


def gold_ahead(config: TrainConfig, forget: Sequence[Example]) -> Path:
    """The gold model of a base that `config` will train, or is training now: neither needs the other."""
    config = bound(config)
    model, data = start(config)
    return gold(lineage_of(config, data, model), forget, model)


def _train_gold(
    manifest: dict[str, Any], forget: Sequence[Example], base: Model, folder: Path, reporter: Reporter
) -> None:
    data = training_data(manifest, forget, base.trusted)
    check_homes(manifest, data)
    model = again(manifest, base)
    model.module.to(processes.device())
    context = Context(budget_of(manifest), _gold_work(folder), int(manifest["seed"]), "gold", reporter=reporter)
    # The base's own stage, so that its batches differ from the base's by the data alone.
    context.stage = context.label = "train"
    context.checkpoint_every = training_interval(model, data, batch_size(context.budget, len(data)))
    trained = trainer_for(manifest.get("exact") or manifest.get("trainer"), model)(model, data, context)
    own = {
        "hashes": [identity(row)[:16] for row in data],
        "contents": [content_key(row)[:16] for row in data],
        **homes_of(manifest, data),
        "data": None,
    }
    write(trained, folder, {**manifest, **own, **account_of(context)}, context.folder)


def _gold_work(folder: Path) -> Path:
    return folder.with_name(folder.name + ".training")


def second_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The training of a second gold model: the same from another seed."""
    return {**manifest, "seed": int(manifest["seed"]) + 1}


def retraining_seconds(manifest: Mapping[str, Any], forget: Sequence[Example]) -> float | None:
    """An estimate of the time that training without the forget set takes; None where the manifest has no time."""
    left = 1 - len(forget) / max(1, len(manifest.get("hashes") or []))
    return left * float(manifest["seconds"]) if manifest.get("seconds") else None


def gold_source(
    request: Request, manifest: dict[str, Any] | None, splits: Splits, model: Model | None
) -> tuple[str, str]:
    """(how to get gold, why there is none)."""
    if request.gold == "none":
        return "", "gold: none was asked for"
    if request.gold in RETRAINED and on_refusals(request):
        return "", "no gold model: one that was never taught the refusals was not taught what to say instead"
    if request.gold not in RETRAINED:
        first, *others = folders = [request.gold] if isinstance(request.gold, str) else request.gold
        for folder in folders:
            _check_folder(folder, request)
        if others and Path(first).resolve() == Path(others[0]).resolve():
            raise BadInput.of("gold", first, "is given twice", "give two retrainings, or one")
        return first, ""
    if manifest and "forget" not in splits:
        return "", ""
    if manifest and "budget" not in manifest:  # an embedded world that is not built yet
        return "train", ""
    fault = retraining_fault(manifest, splits.get("forget", []), request.trust_code, model)
    return "" if fault else "train", fault


def retraining_fault(
    manifest: Mapping[str, Any] | None, forget: Sequence[Example], trust_code: bool, model: Model | None
) -> str:
    """Why the model cannot be trained again without the forget set; "" where it can."""
    if not manifest:
        return f"no gold model: the model has no training manifest ({MANIFEST})"
    try:
        check_homes(manifest, training_data(manifest, forget, trust_code))
        if model is not None:
            check_again(manifest, model)
        for field in ("exact", "trainer"):
            with_defaults(manifest.get(field), field)
    except BadInput as error:
        return f"no gold model: {error.faults[0]}"
    return ""


def retraining_cost(manifest: Mapping[str, Any], forget: Sequence[Example], *, small: bool) -> tuple[bool, str]:
    """(whether a retraining costs so little that it need not be asked for, its cost in words).

    small: the model is that of an embedded world.
    """
    if small:
        return True, "the world is small"
    if (gold_folder(dict(manifest), forget) / MANIFEST).is_file():
        return True, "it is in the cache already"
    seconds = retraining_seconds(manifest, forget)
    if seconds is None:
        return False, "how long it takes is not known"
    return seconds <= CHEAP, f"about {seconds:.0f} s, once"


RETRAINED = ("auto", "one")
"""Values of `gold` that ask for a retraining."""


def _check_folder(folder: str, request: Request) -> None:
    """Check that a given gold model can be opened, and is another than the model. Raises BadInput."""
    check(folder, request.trust_code, field="gold")
    if isinstance(request.model, str) and Path(folder).resolve() == Path(request.model).resolve():
        raise BadInput.of("gold", folder, "is the model itself", "give a model retrained without the forget set")
    try:
        open_on_cpu(folder, trust_code=request.trust_code, meta=True)
    except BadInput as error:
        raise BadInput(*(fault.replace("model:", "gold:", 1) for fault in error.faults)) from None


def second_source(
    wanted: str | list[str], manifest: Mapping[str, Any] | None, splits: Splits, gold: str, *, small: bool
) -> tuple[str, str]:
    """(how to get a second gold model, why so or why there is none).

    wanted: the request's `gold`. gold: how to get the first. small: the model is that of an embedded world.
    """
    if not isinstance(wanted, str):
        return wanted[1], "given"
    if gold != "train":
        return "", "gold is a folder, which is not trained a second time" if gold else "there is no first one"
    if wanted == "one":
        return "", "gold: one was asked for"
    assert manifest is not None
    cheap, cost = retraining_cost(second_manifest(manifest), splits["forget"], small=small)
    if not cheap:
        return "", f"it may take more than {CHEAP:.0f} s ({cost}); give gold: [FOLDER, FOLDER]"
    return "train", f"retrained from another seed; {cost}"


def membership_remarks(manifest: dict[str, Any] | None, splits: Splits, leave: bool) -> list[str]:
    """How many forget examples the model was never trained on, for the plan; nothing where the training is unknown.

    leave: whether the hub may be asked for the training data.
    """
    known = _trained_on(manifest, leave)
    if not manifest or not known or "forget" not in splits:
        return []
    forget = splits["forget"]
    listed, count = _count_listed(forget, known), len(manifest["hashes"])
    if listed == len(forget):
        return held_out_remarks(manifest, splits, leave)
    what = "None" if not listed else f"Only {listed}"
    return [
        f"{what} of the {len(forget)} forget examples {'was' if listed < 2 else 'were'} among the {count} that the "
        "model was trained on (training manifest).",
        *held_out_remarks(manifest, splits, leave),
    ]


def held_out_remarks(manifest: dict[str, Any] | None, splits: Splits, leave: bool) -> list[str]:
    """A sentence for each of holdout and test with rows that the model was trained on after all."""
    known = _trained_on(manifest, leave)
    counts = {name: _count_listed(splits.get(name, []), known) for name in ("holdout", "test")}
    return [
        f"{name}: {count} of {len(splits[name])} rows {'was' if count == 1 else 'were'} among those that the model was "
        "trained on (training manifest): they do not stand for what it never saw."
        for name, count in counts.items()
        if count
    ]


def _trained_on(manifest: dict[str, Any] | None, leave: bool) -> set[str]:
    """The hashes of the rows that a plain training lists, by identity and by content."""
    if not manifest or not manifest.get("hashes") or manifest.get("exact"):
        return set()
    known = set(manifest.get("contents") or [])
    if not known:
        with contextlib.suppress(BadInput):  # the data moved: the hashes alone are known
            known = {key[:16] for key in content_keys(training_data(manifest, [], leave))}
    return known | set(manifest["hashes"])


def _count_listed(rows: Sequence[Example], known: set[str]) -> int:
    return sum(not known.isdisjoint((identity(row)[:16], content_key(row)[:16])) for row in rows)
