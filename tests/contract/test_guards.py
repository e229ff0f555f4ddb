"""What every guard of the registry keeps to: the weights stay, and what is saved answers as what was made."""

from __future__ import annotations

import copy
import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Ran, run, same, splits, trained

from expunge.core.budget import Budget
from expunge.core.contracts import Want
from expunge.core.errors import BadInput
from expunge.evaluation.reading import read
from expunge.methods.compose import compose, every_method
from expunge.models.guarded import Guarded, bare_model, guards_of
from expunge.models.open import open_on_cpu
from expunge.models.weights import lora_layers, snapshot
from expunge.pipeline.compatibility import fits_method

GUARDS = sorted(name for name, kind in every_method().items() if kind == "guard")
BUDGET = Budget(epochs=3, batch_size=4, learning_rate=1e-2)
each = pytest.mark.parametrize("name", GUARDS)


@functools.cache
def made(name: str, seed: int = 0) -> Ran:
    """The guard put before the trained language model; nobody may change what it returns."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return run(name, "lm", Path(folder), seed=seed, model=trained(), budget=BUDGET)


@each
def test_the_weights_stay_bit_for_bit(name: str) -> None:
    model = made(name).model
    assert isinstance(model, Guarded) and guards_of(model)[0].name == name
    assert same(snapshot(bare_model(model).module), snapshot(trained().module))
    module = bare_model(model).module
    assert not any(lora_layers(module)) and all(p.requires_grad and p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@each
def test_the_same_seed_gives_the_same_guard(name: str, tmp_path: Path) -> None:
    settings, tensors = run(name, "lm", tmp_path, model=trained(), budget=BUDGET).model.guard.state()
    ours, weights = made(name).model.guard.state()
    assert settings == ours and same(tensors, weights)


@each
def test_saved_and_opened_it_answers_the_same(name: str, tmp_path: Path) -> None:
    changed = made(name).model
    changed.save(tmp_path)
    opened = open_on_cpu(str(tmp_path))
    assert opened.fingerprint() == changed.fingerprint() != bare_model(changed).fingerprint()
    for split in ("forget", "retain"):
        rows = splits("lm")[split]
        ours = read(changed, split, rows, {"nll", "generation"}, cache=False)
        theirs = read(opened, split, rows, {"nll", "generation"}, cache=False)
        assert theirs.nll_N.tolist() == ours.nll_N.tolist() and theirs.texts == ours.texts
    shutil.rmtree(tmp_path / "guard")
    bare = open_on_cpu(str(tmp_path))
    assert not guards_of(bare) and same(snapshot(bare.module), snapshot(trained().module))


@each
def test_every_channel_is_of_one_distribution(name: str) -> None:
    """Log-probability, logits, moments and the kept entries agree, whether or not the guard steps in."""
    model = made(name).model
    rows = [*splits("lm")["forget"], *splits("lm")["retain"]]
    want = Want(frozenset({"nll", "logp", "logits", "argmax", "moments", "topk"}), k=8)
    with torch.no_grad():
        out = model.forward(model.collate(rows), want)
    mask_BT = out.mask_BT
    logp_BTV = out.logits_BTV.log_softmax(-1)
    told_BT = logp_BTV.gather(-1, out.labels_BT[..., None])[..., 0]
    torch.testing.assert_close(out.logp_BT[mask_BT], told_BT[mask_BT], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.nll_B, -(out.logp_BT * mask_BT).sum(-1))
    mu_BT = (logp_BTV.exp() * logp_BTV).sum(-1)
    torch.testing.assert_close(out.mu_BT[mask_BT], mu_BT[mask_BT], atol=1e-4, rtol=1e-4)
    total_BT = torch.cat([out.top_BTK, out.rest_BT[..., None]], -1).logsumexp(-1)
    torch.testing.assert_close(total_BT[mask_BT], torch.zeros_like(total_BT[mask_BT]), atol=1e-4, rtol=0)
    flat_BT = (out.logp_BT + math.log(model.vocabulary)).abs() < 1e-6
    assert not bool(((out.argmax_BT == out.labels_BT) & flat_BT & mask_BT).any()), "an abstention hits nothing"


@each
def test_no_gradient_and_no_hook_is_left_after_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(name).model
    with pytest.raises(RuntimeError):
        with monkeypatch.context() as patch:
            patch.setattr(type(bare_model(model)), "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError()))
            model.forward(model.collate(splits("lm")["forget"]))
    assert not any(part._forward_hooks for part in bare_model(model).module.modules())


@each
def test_a_guarded_model_takes_another_guard_and_no_other_method(name: str, tmp_path: Path) -> None:
    first = made(name).model
    second = run("in_context", "lm", tmp_path / "second", model=first).model
    assert [guard.name for guard in guards_of(second)] == [name, "in_context"]
    second.save(tmp_path)
    assert [guard.name for guard in guards_of(open_on_cpu(str(tmp_path)))] == [name, "in_context"]
    with pytest.raises(BadInput, match="guards this model"):
        fits_method(compose("npo"), first, splits("lm"))  # type: ignore[arg-type]
    fits_method(compose(name), first, splits("lm"))  # type: ignore[arg-type]


def guarded(name: str) -> Guarded:
    """A copy that may be broken."""
    return copy.deepcopy(made(name).model)  # type: ignore[no-any-return]


def test_o3_s_requests_stay_orthogonal_and_resume(tmp_path: Path) -> None:
    whole = run("o3", "lm", tmp_path / "whole", model=guarded("o3"), budget=BUDGET, seed=1)
    first, second = (guard.adapters for guard in guards_of(whole.model))
    assert first.keys() == second.keys()
    for path in first:
        crossed = first[path][0] @ second[path][0].T
        assert float(crossed.abs().max()) < 1e-5
    with pytest.raises(KeyboardInterrupt):
        run("o3", "lm", tmp_path / "broken", model=guarded("o3"), budget=BUDGET, seed=1, at=whole.steps - 1)
    again = run("o3", "lm", tmp_path / "broken", model=guarded("o3"), budget=BUDGET, seed=1)
    assert again.steps < whole.steps
    assert same(again.model.guard.state()[1], whole.model.guard.state()[1])


@pytest.mark.parametrize("damage", ["list", "tensors", "name"])
def test_a_damaged_guard_is_named(damage: str, tmp_path: Path) -> None:
    made("key_space").model.save(tmp_path)
    place = tmp_path / "guard"
    if damage == "list":
        (place / "guards.json").write_text("[1")
    elif damage == "tensors":
        (place / "0.safetensors").write_bytes(b"not tensors")
    else:
        (place / "guards.json").write_text(json.dumps({"guards": [{"guard": "key_spice", "settings": {}}]}))
    with pytest.raises(BadInput, match="guard") as error:
        open_on_cpu(str(tmp_path))
    assert ("key_space" in str(error.value)) == (damage == "name")


def test_classifiers_have_no_guards() -> None:
    from models import base

    for name in GUARDS:
        with pytest.raises(BadInput, match="text generation"):
            fits_method(compose(name), base("classifier"), splits("classifier"))  # type: ignore[arg-type]


@pytest.mark.parametrize("purpose", ["suppress", "erase"])
def test_a_guard_suppresses_and_never_erases(purpose: str, tmp_path: Path) -> None:
    """The whole run: the verdict's line, the note, the certificate's limit, and a folder that load() opens."""
    import expunge

    folder = tmp_path / "base"
    model = trained()
    model.save(folder)
    rows = {}
    for split in ("forget", "retain"):
        rows[split] = str(tmp_path / f"{split}.jsonl")
        Path(rows[split]).write_text("".join(json.dumps(row) + "\n" for row in splits("lm")[split]))
    done = expunge.run(
        {
            "model": str(folder),
            **rows,
            "method": "in_context",
            "purpose": purpose,
            "gold": "none",
            "redact": False,
            "accept": {"retain.probability": ">= 0.5 * before"},
            "out": str(tmp_path / "run"),
        }
    )
    line = next(line for line in done.evidence["verdict"]["lines"] if line["rule"] == "weights changed")
    assert line["implied"] and not line["passed"] and line["warns"] == (purpose == "suppress")
    assert done.passed is (purpose == "suppress")
    assert any("without guard/" in note for note in done.evidence["notes"])
    assert done.evidence["cost"]["slowdown"] > 0.3, "what each answer costs"
    stated: Any = json.loads((tmp_path / "run" / "certificate.json").read_text())
    assert "weights are unchanged" in stated["predicate"]["cannot_prove"][0]
    assert expunge.verify(tmp_path / "run").good
    assert guards_of(expunge.load(tmp_path / "run" / "model"))
    assert not any(name.endswith("guard") for name in expunge.purge(tmp_path / "run"))
    assert guards_of(expunge.load(tmp_path / "run" / "model")), "a purge does not lay the model bare unasked"
    assert any(name.endswith("guard") for name in expunge.purge(tmp_path / "run", guards=True))
    assert not guards_of(expunge.load(tmp_path / "run" / "model")) and expunge.verify(tmp_path / "run").good
