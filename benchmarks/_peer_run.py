"""Runs open-unlearning's own train.py or eval.py on the CPU, unchanged, with the peer's Python: never imported by ours.

_peer_run.py train|eval CHECKOUT WORK MODEL OUT [--steps N] [--batch N]

deepspeed and lm_eval, which two files import and nothing here uses, are stubbed. Overrides: CPU, sdpa, float32, torch's
AdamW, no evaluation at the start and after each epoch (its default, twelve in 30 steps), and TOFU's real-author and
world-fact parts of model_utility left out. WORK/locuslab/TOFU stands in for the hub's data set. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import os
import runpy
import sys
import time
import types
from typing import Any

RATE = 3e-4


def stub(name: str, **members: Any) -> None:
    """A module that can be imported and holds these members."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__dict__.update(members)
    sys.modules[name] = module


def timed(owner: Any, name: str, label: str, spent: dict[str, float]) -> None:
    """Adds the processor seconds of a method to `spent`."""
    whole = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return whole(*args, **options)
        finally:
            spent[label] = round(spent.get(label, 0.0) + time.process_time() - began, 3)

    setattr(owner, name, call)


def overrides(given: argparse.Namespace) -> list[str]:
    """Hydra's command line."""
    model = "model.model_args"
    new = "" if given.verb == "eval" else "+"
    found = [
        f"{model}.pretrained_model_name_or_path={given.model}",
        f"model.tokenizer_args.pretrained_model_name_or_path={given.model}",
        f"{model}.attn_implementation=sdpa",
        f"{model}.torch_dtype=float32",
        f"{new}{model}.device_map=cpu",
        "model.template_args.system_prompt=null",
        "model.template_args.date_string=null",
        f"paths.output_dir={given.out}",
        "task_name=t",
        "retain_logs_path=null",
    ]
    for world in ("ra", "wf"):
        for part in ("Q_A_Prob_normalised", "Q_A_ROUGE", "Truth_Ratio"):
            found.append(f"~eval.tofu.metrics.model_utility.pre_compute.{world}_{part}")
    if given.verb == "eval":
        return ["experiment=eval/tofu/default", *found, "eval.tofu.overwrite=true"]
    trainer = {
        "per_device_train_batch_size": given.batch,
        "gradient_accumulation_steps": 1,
        "learning_rate": RATE,
        "bf16": False,
        "bf16_full_eval": False,
        "optim": "adamw_torch",
        "eval_strategy": "no",
        "eval_on_start": False,
        "warmup_epochs": "null",
        "weight_decay": 0,
        "report_to": "none",
    }
    more = {"max_steps": given.steps, "use_cpu": True, "lr_scheduler_type": "constant", "disable_tqdm": True}
    found += [f"trainer.args.{name}={value}" for name, value in trainer.items()]
    found += [f"+trainer.args.{name}={value}" for name, value in more.items()]
    return ["--config-name=unlearn.yaml", "experiment=unlearn/tofu/default", "trainer=NPO", *found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("verb", "checkout", "work", "model", "out"):
        parser.add_argument(name)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    os.environ.update(offline, HF_HOME=f"{given.work}/hf", TOKENIZERS_PARALLELISM="false")
    os.chdir(given.work)
    sys.path.insert(0, f"{given.checkout}/src")
    stub("deepspeed")
    stub("lm_eval", simple_evaluate=None)
    stub("lm_eval.models")
    stub("lm_eval.models.hf_vlms", HFLM=None)
    stub("lm_eval.tasks", TaskManager=None)
    import evals.base  # the peer's
    import transformers

    spent: dict[str, float] = {}
    timed(evals.base.Evaluator, "evaluate", "evaluation", spent)
    timed(transformers.Trainer, "train", "training", spent)
    started = round(time.process_time(), 3)
    sys.argv = [f"{given.checkout}/src/{given.verb}.py", *overrides(given)]
    runpy.run_path(sys.argv[0], run_name="__main__")
    print("\n" + json.dumps({"imports": started, **spent, "all": round(time.process_time(), 3)}), flush=True)


if __name__ == "__main__":
    main()
