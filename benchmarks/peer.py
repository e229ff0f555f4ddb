#!/usr/bin/env python3
"""Expunge beside open-unlearning (locuslab, at d3d7cf9): same data, model, work and machine, in turn.

peer.py CHECKOUT PYTHON [--work FOLDER] [--models a b] [--rounds 2] [--precision fp32] [--read own]

CHECKOUT: a folder with the peer's files. PYTHON: its interpreter, with the same torch as this one (CPU), transformers
4.45.1, numpy 2.2.3, hydra-core 1.3, hydra_colorlog 1.2, datasets 3.0.1, accelerate 0.34.2, rouge-score, scipy 1.14.1,
scikit-learn 1.5.2 and huggingface-hub 0.29.1. FOLDER keeps data and models, which take minutes to make, between calls.

Model a: a 1.2-M Llama, 30 steps of NPO; b: 58 M, 4 steps. Each step has 16 forget and 16 retain rows; both sides
then read, generate and score 48 forget and 120 retain rows (we also 48 of the holdout and 48 of the retain rows that
were trained on). What needs gold is left out on both sides, and our readouts of the model before are in the cache.
The peer computes in float32; we train in --precision and read the splits in --read (own: float32).
Figures are the system's account of each finished process: seconds of processor time (user and system, one thread; the
clock would measure what else the machine does) and the largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMITS = {"fp32": {"a": 0.7, "b": 0.42}, "bf16": {"a": 0.7, "b": 0.33}}
"""Our precision -> model -> the most of the peer's processor time that a run may take."""
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}Question: {{ m['content'] }}\nAnswer:\n"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
)
"""No tokenizer merges the newline before the answer: where one merges a space into the first word, the peer, which
tokenises prompt and answer together, leaves the first token of the answer out of the loss."""
SIZES = {
    "a": {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 512, "heads": 4, "vocab_size": 1000},
    "b": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1376, "heads": 8, "vocab_size": 32_000},
}
TEACH = {
    "a": {"epochs": 15, "batch_size": 12, "learning_rate": 3e-3},
    "b": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3},
}
STEPS = {"a": 30, "b": 4}
ROWS = {"forget": 48, "retain": 384, "holdout": 48}
READ = 120
"""Rows of retain that either side scores."""
BUDGET = {
    "batch_size": 16,
    "learning_rate": 3e-4,
    "stop": "none",
    "floor": 0,
    "warmup": 0,
    "clip": 1.0,
    "weight_decay": 0,
    "schedule": "constant",
}


# -- data and models ------------------------------------------------------------------------------


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_data(work: Path) -> None:
    """WORK/data for us, and the same rows as WORK/locuslab/TOFU, a data set with the names of TOFU's configurations."""
    from expunge.data.load import load

    rows = {name: load(f"builtin:authors/{name}", name)[:count] for name, count in ROWS.items()}
    for name, found in rows.items():
        write_rows(work / "data" / f"{name}.jsonl", found)
    fields = ("question", "answer", "paraphrased_answer", "perturbed_answer")
    flat = {name: [{field: row[field] for field in fields} for row in found] for name, found in rows.items()}
    configurations = {
        "forget10": flat["forget"],
        "forget10_perturbed": flat["forget"],
        "retain90": flat["retain"],
        "retain_perturbed": flat["retain"][:READ],
        "holdout10": flat["holdout"],
    }
    folder = work / "locuslab" / "TOFU"
    head = "---\nconfigs:\n"
    for name, found in configurations.items():
        write_rows(folder / f"{name}.jsonl", found)
        head += f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.jsonl\n"
    (folder / "README.md").write_text(head + "---\n")


def make_models(work: Path, name: str) -> None:
    """WORK/<name>, a new Llama that was taught forget and retain."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from expunge.data.load import load
    from expunge.models.new_lm import texts_of, tokenizer_for

    every = [row for split in ("retain", "forget", "holdout") for row in load(f"builtin:authors/{split}", split)]
    words = tokenizer_for(texts_of(every), 1000)
    words.chat_template = CHAT
    sizes = dict(SIZES[name])
    heads = sizes.pop("heads")
    torch.manual_seed(0)
    config = LlamaConfig(
        **sizes,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=name == "a",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    start = work / f"{name}0"
    LlamaForCausalLM(config).save_pretrained(start)
    words.save_pretrained(start)
    open_in_both(start)
    data = [str(work / "data" / f"{split}.jsonl") for split in ("retain", "forget")]
    request = {"model": str(start), "data": data, **TEACH[name], "seed": 0, "out": str(work / name)}
    path = work / f"{name}.train.json"
    path.write_text(json.dumps(request))
    subprocess.run([sys.executable, "-m", "expunge", "train", str(path)], check=True)
    open_in_both(work / name)


def open_in_both(folder: Path) -> None:
    """Adds what transformers 4.45 asks of a folder that transformers 5 wrote."""
    for name, more in (
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT}),
        ("config.json", {"rope_theta": 10000.0, "torch_dtype": "float32"}),
    ):
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


# -- runs -----------------------------------------------------------------------------------------


def measured(command: list[str], log: Path, **environment: str) -> dict[str, float]:
    """Processor seconds and peak memory (MiB) of a command in a process of its own."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **threads, **environment}
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command[:4])} ... ended with {child.returncode}; see {log}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / unit}


def request_of(work: Path, name: str, steps: int, out: Path, precision: str, read: str) -> list[str]:
    """Our command: as many steps of NPO, and the figures of what was saved."""
    request = {
        "model": str(work / name),
        **{split: str(work / "data" / f"{split}.jsonl") for split in ROWS},
        "method": "npo",
        "gold": "none",
        "audit": "none",
        "read_precision": read,
        "seed": 0,
        "out": str(out),
        "budget": {"steps": steps, "precision": precision, **BUDGET},
    }
    path = work / f"{out.name}.json"
    path.write_text(json.dumps(request))
    return [sys.executable, "-m", "expunge", "run", str(path)]


def audit_of(work: Path, name: str, out: Path) -> list[str]:
    files = [part for split in ROWS for part in (f"--{split}", str(work / "data" / f"{split}.jsonl"))]
    options = ["--gold", "none", "--level", "none", "--out", str(out)]
    return [sys.executable, "-m", "expunge", "audit", str(work / name), *files, *options]


class Work:
    """The commands on one model. Each run of ours starts from the same cache, which has the readouts of before."""

    def __init__(self, work: Path, name: str, peer: list[str], precision: str, read: str = "own") -> None:
        self.work, self.name, self.peer, self.precision, self.read = work, name, peer, precision, read
        self.cache = work / f"cache-{name}{'' if read == 'own' else '-' + read}"
        (work / "logs").mkdir(exist_ok=True)

    def theirs(self, verb: str) -> dict[str, float]:
        """Seconds and memory of the peer."""
        out = self.work / "peer"
        shutil.rmtree(out, ignore_errors=True)
        places = [self.peer[1], str(self.work), str(self.work / self.name), str(out)]
        command = [self.peer[0], str(HERE / "_peer_run.py"), verb, *places, "--steps", str(STEPS[self.name])]
        return measured(command, self.work / "logs" / f"peer-{verb}.log", PYTHONPATH="")

    def prime(self) -> None:
        """Fill a cache with the readouts of before, by a run of one step."""
        if not self.cache.is_dir():
            self._ours(self._request(1, self.work / "primed"), self.work / "priming")
            (self.work / "priming").rename(self.cache)

    def ours(self, verb: str) -> dict[str, float]:
        """Seconds and memory of ours."""
        cache, out = self.work / "cache", self.work / "ours"
        shutil.rmtree(cache, ignore_errors=True)
        if verb == "train":
            shutil.copytree(self.cache, cache)
            return self._ours(self._request(STEPS[self.name], out), cache)
        return self._ours(audit_of(self.work, self.name, out), cache)

    def _request(self, steps: int, out: Path) -> list[str]:
        return request_of(self.work, self.name, steps, out, self.precision, self.read)

    def _ours(self, command: list[str], cache: Path) -> dict[str, float]:
        for out in (self.work / "ours", self.work / "primed"):
            shutil.rmtree(out, ignore_errors=True)
        return measured(command, self.work / "logs" / "ours.log", EXPUNGE_CACHE=str(cache))


def compare(work: Work, verb: str, rounds: int) -> dict[str, Any]:
    """Ours and theirs in turn; the medians, and the ratio of each pair."""
    pairs = [(work.theirs(verb), work.ours(verb)) for _ in range(rounds)]
    theirs, ours = ({key: [one[key] for one in column] for key in column[0]} for column in zip(*pairs))
    middle = {
        who: {key: statistics.median(values) for key, values in found.items()}
        for who, found in (("theirs", theirs), ("ours", ours))
    }
    ratios = [mine / other for mine, other in zip(ours["seconds"], theirs["seconds"])]
    memory = middle["ours"]["mib"] / middle["theirs"]["mib"]
    print(
        f"{work.name} {'run' if verb == 'train' else 'evaluation'}: {middle['theirs']['seconds']:.1f} s theirs, "
        f"{middle['ours']['seconds']:.1f} s ours, {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}); {middle['theirs']['mib']:.0f} MiB theirs, {middle['ours']['mib']:.0f} ours, {memory:.2f}",
        flush=True,
    )
    spread = max(theirs["seconds"]) / min(theirs["seconds"])
    return {**middle, "ratio": statistics.median(ratios), "memory": memory, "spread": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("python")
    parser.add_argument("--work", type=Path, default=Path("runs/peer"))
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=["a"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=list(LIMITS), default="fp32", help="of our training")
    parser.add_argument("--read", choices=["own", "bf16"], default="own", help="of our reading of the splits")
    parser.add_argument("--prepare", action="store_true", help="make data, models and caches alone")
    given = parser.parse_args()
    work = given.work.resolve()
    peer = [given.python, str(given.checkout.resolve())]
    if not (work / "locuslab").is_dir():
        make_data(work)
    found: dict[str, dict[str, Any]] = {}
    for name in given.models:
        if not (work / name).is_dir():
            make_models(work, name)
        both = Work(work, name, peer, given.precision, given.read)
        both.prime()
        if not given.prepare:
            found[name] = compare(both, "train", given.rounds)
            found[f"{name} evaluation"] = compare(both, "eval", given.rounds) if name == "a" else {}
    if given.prepare:
        return
    last = given.models[-1]
    line = {
        "name": "peer",
        "precision": given.precision,
        "read": given.read,
        "ratio": round(found[last]["ratio"], 3),
        "unit": "seconds",
        "ours": round(found[last]["ours"]["seconds"], 1),
        "theirs": round(found[last]["theirs"]["seconds"], 1),
        "control": round(found[last]["spread"], 3),
        "memory": {name: round(found[name]["memory"], 3) for name in given.models},
        "ratios": {name: round(one["ratio"], 3) for name, one in found.items() if one},
    }
    print(json.dumps(line))
    sys.exit(any(found[name]["ratio"] > LIMITS[given.precision][name] for name in given.models))


if __name__ == "__main__":
    main()
