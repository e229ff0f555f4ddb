"""Checks that everything runs on this device, on a small model: what `gpu.py --check` prints."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import expunge
from expunge.core.budget import Budget
from expunge.core.context import Context, Log
from expunge.data.worlds.authors import authors
from expunge.evaluation.reading import read
from expunge.methods.compose import compose
from expunge.models.open import open_model
from expunge.models.weights import snapshot

NPO = {"forget": "npo", "retain": "cross_entropy"}
LORA = {**NPO, "weights": "lora"}
NLL = 1e-4
"""Nats a token by which two devices' readings may differ in float32."""
SIZES = {"architecture": "llama", "hidden_size": 64, "layers": 2, "heads": 4, "vocab_size": 400}


@dataclass
class Bench:
    """A small world: data files, and a base that `expunge.train` makes of them when it is first used."""

    folder: Path
    device: str

    @cached_property
    def splits(self) -> dict[str, list[dict[str, Any]]]:
        sizes = {"forget": 12, "retain": 24, "holdout": 12}
        return {name: rows[: sizes[name]] for name, rows in authors().items()}

    @cached_property
    def files(self) -> dict[str, str]:
        for name, rows in self.splits.items():
            (self.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {name: str(self.folder / f"{name}.jsonl") for name in self.splits}

    @cached_property
    def base(self) -> str:
        out = str(self.folder / "base")
        data = [self.files["forget"], self.files["retain"]]
        fields = {"data": data, "vocabulary": self.files["holdout"], "batch_size": 6, "epochs": 20}
        expunge.train(expunge.TrainConfig(model=SIZES, learning_rate=5e-3, out=out, **fields))
        return out

    def trained(self, spec: Any, model: Any = None, steps: int = 4, **fields: Any) -> tuple[Any, list[dict[str, Any]]]:
        """(the model after a few steps of a method, the steps' log lines)."""
        model = model or open_model(self.base)
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            budget = Budget(steps=steps, batch_size=6, learning_rate=1e-3, stop="none", floor=0.0, **fields)
            log = Log(Path(place) / "log.jsonl")
            changed = compose(spec).method(model, self.splits, Context(budget, Path(place), log=log))
            return changed, [json.loads(line) for line in (Path(place) / "log.jsonl").read_text().splitlines()]


def same_bits(bench: Bench, spec: Any) -> str:
    """Two runs of a method end with the same weights, under deterministic algorithms."""
    torch.use_deterministic_algorithms(True)
    try:
        one, two = (snapshot(bench.trained(spec)[0].module) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    different = [name for name, value in one.items() if not torch.equal(value, two[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, {different[0]} first"
    moved = sum(not torch.equal(v.cpu(), w) for v, w in zip(one.values(), before(bench), strict=True))
    assert moved, "no weight moved"
    return f"{len(one)} tensors equal bit for bit, {moved} moved"


def before(bench: Bench) -> list[torch.Tensor]:
    return [value.cpu() for value in snapshot(open_model(bench.base).module).values()]


def readings(bench: Bench) -> str:
    """NLLs a token against the CPU's."""
    here = open_model(bench.base)
    there = copy.deepcopy(here)
    there.module.cpu()
    gaps = []
    for name, rows in bench.splits.items():
        ours, theirs = (read(model, name, rows, {"nll", "logp", "moments"}, cache=False) for model in (here, there))
        gaps.append(float(np.abs(ours.mean_nll_N - theirs.mean_nll_N).max()))
    assert max(gaps) <= NLL, f"NLLs differ by {max(gaps):.2g} nats a token"
    return f"largest gap {max(gaps):.2g} nats a token"


def texts(bench: Bench) -> str:
    """Greedy answers against the CPU's."""
    here = open_model(bench.base)
    there = copy.deepcopy(here)
    there.module.cpu()
    rows = [row for part in bench.splits.values() for row in part]
    ours, theirs = here.generate(rows), there.generate(rows)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert same == len(rows), f"{len(rows) - same} of {len(rows)} answers differ"
    return f"{same} of {len(rows)} answers equal, {len(set(ours))} different ones"


def run(bench: Bench) -> str:
    """A whole run with a gold of its own and a standard audit, and its certificate."""
    out = bench.folder / "run"
    request = {"model": bench.base, **bench.files, "method": "npo", "gold": "one", "audit": "standard"}
    done = expunge.run({**request, "budget": {"steps": 4, "batch_size": 6}, "out": str(out)})
    measured = sum(score["status"] == "measured" for score in done.evidence["scores"])
    assert expunge.verify(str(out)).good, "the certificate does not hold"
    return f"{measured} of {len(done.evidence['scores'])} scores measured"


def audit(bench: Bench) -> str:
    """A standard audit of a model in a folder."""
    after = bench.folder / "run" / "model"
    model = str(after) if after.is_dir() else bench.base
    evidence = expunge.audit(model, **bench.files, before=bench.base, gold="none", level="standard")
    measured = sum(score["status"] == "measured" for score in evidence["scores"])
    return f"{measured} of {len(evidence['scores'])} scores measured"


def compiled(bench: Bench) -> str | None:
    """A step's losses with torch.compile against those without."""
    if bench.device == "cpu":
        return None
    model = open_model(bench.base)
    model.module.model.compile()
    _, ours = bench.trained(NPO, model, precision="fp32")
    _, theirs = bench.trained(NPO, precision="fp32")
    gap = max(abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True))
    assert gap <= 1e-3, f"losses differ by {gap:.2g}"
    return f"losses of {len(ours)} steps equal to {gap:.2g}"


def four_bits(bench: Bench) -> str | None:
    """A folder in 4 bits (bitsandbytes) opens in floating point, is trained by LoRA, saved, and opened again."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return None
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    packed = str(bench.folder / "packed")
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    module = AutoModelForCausalLM.from_pretrained(
        bench.base, quantization_config=settings, device_map={"": bench.device}
    )
    module.save_pretrained(packed)
    AutoTokenizer.from_pretrained(bench.base).save_pretrained(packed)
    changed, lines = bench.trained(LORA, open_model(packed))
    changed.save(bench.folder / "unpacked")
    rows = bench.splits["forget"]
    ours, theirs = (
        read(model, "forget", rows, {"nll"}, cache=False).mean_nll_N
        for model in (changed, open_model(str(bench.folder / "unpacked")))
    )
    gap = float(np.abs(ours - theirs).max())
    assert gap <= NLL, f"what was saved differs by {gap:.2g} nats a token"
    return f"{len(lines)} steps, loss {lines[0]['loss']:.3f} to {lines[-1]['loss']:.3f}, saved and opened to {gap:.2g}"


def as_plain(bench: Bench, bound: float, **fields: Any) -> str:
    """Steps with other settings end with AdamW's weights; the largest gap, over the way that the weights went."""
    (one, _), (two, _) = (bench.trained(NPO, precision="fp32", **extra) for extra in ({}, fields))
    ours, theirs = (torch.cat([v.cpu().flatten() for v in snapshot(model.module).values()]) for model in (two, one))
    way = float((theirs - torch.cat([v.flatten() for v in before(bench)])).abs().max())
    gap = float((ours - theirs).abs().max()) / way
    assert way > 0 and gap <= bound, f"weights differ by {gap:.2g} of the way"
    return f"weights equal to {gap:.2g} of the way that they went"


def eight_bits(bench: Bench) -> str | None:
    """AdamW with moments in 8 bits lowers the loss."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return None
    _, lines = bench.trained("finetune", steps=12, optimizer="adamw_8bit")
    first, last = lines[0]["loss"], lines[-1]["loss"]
    assert last < first, f"the loss went from {first:.3f} to {last:.3f}"
    return f"{len(lines)} steps, loss {first:.3f} to {last:.3f}"


def processes(bench: Bench) -> str | None:
    """One process under torchrun and NCCL makes the model that a plain run makes; two need two GPUs."""
    if bench.device == "cpu":
        return None
    request = {"model": bench.base, **bench.files, "method": "npo", "gold": "none", "audit": "none"}
    request |= {"budget": {"steps": 4, "batch_size": 6, "learning_rate": 1e-3, "precision": "fp32"}, "accept": {}}
    weights = []
    for name, launcher in (("plain", ()), ("torchrun", ("-m", "torch.distributed.run", "--standalone"))):
        path, out = bench.folder / f"{name}.yaml", bench.folder / name
        path.write_text(json.dumps({**request, "out": str(out)}))
        command = [sys.executable, *launcher, "-m", "expunge", "run", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr[-800:]
        weights.append(snapshot(open_model(str(out / "model")).module))
    gap = max(float((v - weights[1][name]).abs().max()) for name, v in weights[0].items())
    assert gap <= 1e-5, f"weights differ by {gap:.2g}"
    return f"weights equal to {gap:.2g}"


CHECKS: dict[str, Callable[[Bench], str | None]] = {
    "train": lambda bench: bench.base,
    "npo twice": lambda bench: same_bits(bench, NPO),
    "lora twice": lambda bench: same_bits(bench, LORA),
    "reading against the CPU": readings,
    "generation against the CPU": texts,
    "optimiser in the host's memory": lambda bench: as_plain(bench, 1e-3, optimizer="adamw_offloaded"),
    "layers computed again": lambda bench: as_plain(bench, 1e-3, gradient_checkpointing=True),
    "optimiser in 8 bits": eight_bits,
    "4-bit base": four_bits,
    "run with gold and audit": run,
    "audit": audit,
    "one process of several": processes,
    "torch.compile": compiled,
}


def check(device: str) -> dict[str, Any]:
    """Name, verdict (None: not checked here), detail and seconds of every check; one that fails ends no other."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="expunge-gpu-") as folder,
        mock.patch.dict(os.environ, EXPUNGE_CACHE=f"{folder}/cache"),  # nothing is known from an earlier call
    ):
        bench = Bench(Path(folder), device)
        for name, look in CHECKS.items():
            began = time.monotonic()
            try:
                detail = look(bench)
                passed = None if detail is None else True
            except Exception as error:
                traceback.print_exc()
                passed, detail = False, f"{type(error).__name__}: {error}"
            seconds = round(time.monotonic() - began, 2)
            found.append({"check": name, "passed": passed, "detail": detail or "not checked here", "seconds": seconds})
            print(json.dumps(found[-1]), flush=True)
    return {"name": "gpu-check", "device": device, "torch": torch.__version__, "checks": found}
