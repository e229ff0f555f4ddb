"""The one training loop: bases, gold models and objective runs alike."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core import collection, processes
from expunge.core.budget import DEFAULTS, batch_size
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model, Reference, Term, Trainable, Update, Want
from expunge.core.errors import BadInput
from expunge.data.pairing import Pairing
from expunge.data.sampling import SAMPLE, halves, sample
from expunge.models.metering import count_passes
from expunge.training import checkpoint, rate, sharding
from expunge.training.goal import COLLAPSED, Goal
from expunge.training.optimisers import optimiser_of
from expunge.training.outcome import Outcome
from expunge.training.parts import Cutting
from expunge.training.precision import autocast, precision_of
from expunge.training.recomputation import recomputation
from expunge.training.references import Record, shared_record
from expunge.training.steps import StepLosses, Streams, by_step, record_by_step
from expunge.training.stopping import Stop, figures

SAVE_EVERY = 500
"""Steps between checkpoints at most, where they cost little; an epoch is the other bound."""


@dataclass
class Trainer:
    """A run of terms over splits. anchor: the split whose pass is an epoch.

    The run resumes from the newest checkpoint in the context's folder, and ends with the same
    weights as if it had never stopped.
    """

    model: Model
    splits: Mapping[str, Sequence[Example]]
    terms: Mapping[str, Term]
    context: Context
    trainable: Trainable
    update: Update
    anchor: str
    freeze_statistics: bool = True
    shares: float = 1.0
    """Factor on the automatic rate's share that the moving weights ask for (LoRA: 10)."""

    def __post_init__(self) -> None:
        budget = self.context.budget.over(DEFAULTS)
        self.budget = budget
        self.streams = Streams.of(self.terms)
        sizes = {s.split: len(self.splits[s.split]) for s in self.streams.streams.values()}
        sizes.setdefault(self.anchor, len(self.splits[self.anchor]))
        self.pairing = Pairing(
            self.anchor,
            sizes,
            batch_size(budget, sizes[self.anchor]),
            self.context.seed,
            self.context.stage,
            self._length,
        )
        self.total = (
            budget.steps if budget.steps is not None else (int(budget.epochs or 1) * self.pairing.steps_per_epoch)
        )
        self.precision = precision_of(budget.precision, sum(p.numel() for p in self.model.module.parameters()))
        self.cutting = Cutting.of(self.model, budget.micro_batch_size)
        self.folder = self.context.folder / "checkpoint"
        self.records: dict[str, Record] = {}
        self.names = list(self.trainable.parameters)
        self.parameters = list(self.trainable.parameters.values())

    def _length(self, split: str, row: int) -> int:
        return self.model.length(self.splits[split][row])

    # -- what terms may use in prepare ---------------------------------------------------------

    def examples(self, stream: str) -> list[Example]:
        """Every example of the stream that this run will draw, each once."""
        kept, _ = self._draw_examples(stream)
        return kept

    def rows(self, stream: str) -> list[int]:
        """The split's row of each of `examples(stream)`."""
        _, rows = self._draw_examples(stream)
        return rows

    def record(self, examples: Sequence[Example], want: Want) -> Reference:
        """The model's values now; the reference model's are read in the precision that trains, so that both agree."""
        with autocast(self.precision):
            return shared_record(self.model, examples, want, self.context.compute, self.precision)

    def _draw_examples(self, name: str) -> tuple[list[Example], list[int]]:
        stream = self.streams.streams[name]
        kept, rows = [], []
        for row in self.pairing.rows_of_steps(stream.split, self.total):
            example: Example | None = self.splits[stream.split][row]
            if stream.make is not None and example is not None:
                example = stream.make(example)
            if example is not None:
                kept.append(example)
                rows.append(row)
        return kept, rows

    # -- the run -------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Trains to the stop, the floor or the budget; the best weights are in the model."""
        collection.settle()
        again = recomputation(self.model.module, bool(self.budget.gradient_checkpointing))
        with count_passes(self.model, self.context.compute), again:
            return self._run()

    def _run(self) -> Outcome:
        started = time.monotonic()
        module = self.model.module
        reporter, stage = self.context.reporter, self.context.label
        for term in self.terms.values():  # both read the ORIGIN's weights, also on resume
            term.loss.prepare(self)
        self._fill_records()
        chosen, source = self._rate()
        stop = self._stop()
        optimiser = self._optimiser(chosen)
        done, tokens, spent = self._resume(optimiser, stop)
        if done == 0:
            stop.start()
            if self._judged and stop.decides:
                checkpoint.save_best(self.context.folder, self._weights())
        reporter.start(stage, self.total)
        for step in range(done, self.total):
            if stop.reason:
                break
            tokens += self._step(optimiser, stop, step, chosen)
            done = step + 1
            if self._save_due(done) or stop.reason:
                self._save(optimiser, stop, done, tokens, spent + time.monotonic() - started)
        if self.total == 0:
            stop.reason, stop.sentence = "budget", "No step was asked for: the weights are unchanged."
        reporter.finish(stage)
        if stop.reason and stop.best_step != done:
            checkpoint.restore(module, checkpoint.load_best(self.context.folder), "")
        self._mode(False)
        optimiser.zero_grad(set_to_none=True)
        seconds = spent + time.monotonic() - started
        ending = {
            "reason": stop.reason,
            "sentence": stop.sentence,
            "target_nll": stop.target,
            "step": stop.best_step if stop.best_step != done and stop.reason else done,
        }
        return Outcome(done, seconds, tokens, chosen, source, self.precision, stop.curve, ending)

    def _step(self, optimiser: torch.optim.Optimizer, stop: Stop, step: int, rate: float) -> int:
        """One step with its check and its line in the log; how many tokens it read."""
        stage = self.context.label
        began = time.monotonic()
        self._mode(True)
        losses = self._losses(step)
        self._change(optimiser, losses, step, rate)
        notes = processes.sum_over_processes(losses.notes)
        for term in self.terms.values():
            term.loss.after_step(step, notes)
        figures = processes.sum_over_processes(losses.figures)
        self._finite(figures, step, rate)
        shown = {name: figures.get(name) for name in ("loss", "forget_nll", "retain_nll")}
        line = {"stage": stage, "step": step + 1, **shown, "seconds": round(time.monotonic() - began, 4)}
        better = self._check(stop, step + 1, figures.get("forget_nll"))
        if better and stop.best_step == step + 1 and not stop.reason and stop.decides:
            checkpoint.save_best(self.context.folder, self._weights())
        if processes.main():
            self.context.log.write(line)
        known = "forget_nll" in figures
        note = f"forget NLL {figures['forget_nll']:.2f}" if known else f"loss {figures.get('loss', 0.0):.3f}"
        self.context.reporter.advance(stage, step + 1, note)
        return losses.tokens

    def _change(self, optimiser: torch.optim.Optimizer, losses: StepLosses, step: int, rate: float) -> None:
        """Moves the weights by the update of these losses."""
        optimiser.zero_grad(set_to_none=True)
        self.update(losses, self.parameters)
        self._mask()
        if self.budget.clip is not None:
            sharding.clip_gradients(self.parameters, self.budget.clip)
        for group in optimiser.param_groups:
            group["lr"] = rate * self._schedule(step)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)  # nothing that follows needs the gradients' memory

    def _losses(self, step: int) -> StepLosses:
        return StepLosses(
            self.model,
            self.terms,
            self.streams,
            self.splits,
            self.pairing,
            step,
            self.records,
            lambda: autocast(self.precision),
            self.cutting,
        )

    def _check(self, stop: Stop, step: int, batch_nll: float | None) -> bool:
        better = stop.check(step, batch_nll) if self._judged else False
        if not self._judged and step == self.total:
            stop.reason, stop.sentence, stop.best_step = "budget", f"Trained for {step} steps.", step
        return bool(processes.agree(float(better)))

    @property
    def _judged(self) -> bool:
        return "forget" in self.terms

    # -- parts ---------------------------------------------------------------------------------

    def _fill_records(self) -> None:
        """The origin's values for all rows that will be drawn; a checkpoint is restored after this."""
        for name, want in self.streams.references.items():
            if by_step(self.model):
                steps = (self._losses(step) for step in range(self.total))
                with autocast(self.precision):
                    self.records[name] = record_by_step(self.model, steps, name, want)
                continue
            examples, rows = self._draw_examples(name)
            if examples:
                values = self.record(examples, want)
                self.records[name] = Record({row: i for i, row in enumerate(rows)}, values)

    def _stop(self) -> Stop:
        budget, splits, context = self.budget, self.splits, self.context
        target, rule = None, budget.stop or "none"
        if self._judged and rule == "holdout" and splits.get("holdout"):
            half, _ = halves(splits["holdout"], context.seed)
            target = figures(self.model, half)["nll"]
        elif self._judged and rule == "gold":
            target = context.gold_forget_nll
        forget = sample(splits.get("forget", []), context.seed, 2 * SAMPLE) if self._judged else []
        retain = sample(splits.get("retain") or context.kept, context.seed) if self._judged else []
        repairable = any(s.split == "retain" for s in self.streams.streams.values())
        floor = float(budget.floor or 0.0)
        given = (self.model, forget, retain, target, rule)
        if self._judged and rule == "refusals" and context.refusals is not None:
            hard = floor if splits.get("retain") else min(floor, COLLAPSED)
            return Goal(
                *given,
                hard,
                self.total,
                repairable,
                context.watch,
                score=context.refusals,
                goal=float(budget.goal or 0.0),
                wanted=floor,
            )
        return Stop(*given, floor, self.total, repairable, context.watch)

    def _rate(self) -> tuple[float, str]:
        """The learning rate and where it came from; kept in the folder, so that a resume agrees."""
        wanted = self.budget.learning_rate
        if isinstance(wanted, float | int):
            return float(wanted), "given"
        share = float(self.budget.share or 0.1) * self.shares
        if found := rate.from_manifest(self.context.manifest, share):
            return found
        if not self.splits.get("retain"):
            return rate.WITHOUT_ANYTHING, "auto: no retain data and no manifest to go by"
        stored = self.context.once("rate", self._ladder)
        return float(stored["rate"]), (
            f"auto: the largest rate that kept the retain NLL over {rate.PROBE_STEPS} probe steps"
        )

    def _ladder(self) -> dict[str, Tensor]:
        before = {name: value.detach().cpu().clone() for name, value in self._weights().items()}
        rows = sample(self.splits["retain"], self.context.seed, 64)

        def try_rate(value: float) -> float:
            checkpoint.restore(self.model.module, before, "")
            optimiser = self._optimiser(value)
            self._mode(True)
            for step in range(min(rate.PROBE_STEPS, max(1, self.total))):
                optimiser.zero_grad(set_to_none=True)
                self.update(self._losses(step), self.parameters)
                self._mask()
                if self.budget.clip is not None:
                    sharding.clip_gradients(self.parameters, self.budget.clip)
                optimiser.step()
            found = figures(self.model, rows)["nll"]
            return found if math.isfinite(found) else math.inf

        start = figures(self.model, rows)["nll"]
        chosen, _ = rate.ladder(try_rate, start)
        checkpoint.restore(self.model.module, before, "")
        return {"rate": torch.tensor(chosen, dtype=torch.float64)}

    def _optimiser(self, value: float) -> torch.optim.Optimizer:
        if (own := self.update.optimiser(self.parameters, value)) is not None:
            return own
        decay = 0.0 if self.trainable.masks else float(self.budget.weight_decay or 0.0)
        return optimiser_of(self.parameters, value, decay, self.budget)

    def _schedule(self, step: int) -> float:
        warm = math.ceil(float(self.budget.warmup or 0.0) * self.total)
        if step < warm:
            return (step + 1) / (warm + 1)
        if self.budget.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.total - warm)))
        return 1.0

    def _mode(self, training: bool) -> None:
        module = self.model.module
        module.train(training)
        if training and self.freeze_statistics:
            for part in module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def _mask(self) -> None:
        for name, mask in (self.trainable.masks or {}).items():
            grad = self.trainable.parameters[name].grad
            if grad is not None:
                grad.mul_(mask)

    def _finite(self, figures: Mapping[str, float], step: int, chosen: float) -> None:
        if not all(math.isfinite(value) for value in figures.values()):
            raise BadInput.of(
                "budget.learning_rate",
                f"{chosen:g}",
                f"made the loss infinite at step {step + 1}",
                "take a smaller rate, or `learning_rate: auto`",
            )

    # -- checkpoints ---------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        moved = {name: sharding.whole(p.detach()) for name, p in self.trainable.parameters.items()}
        return {**moved, **checkpoint.buffers(self.model.module)}

    def _save_due(self, step: int) -> bool:
        """Whether a checkpoint follows this step; none just before the end, which has its own."""
        every = max(self.context.checkpoint_every, min(self.pairing.steps_per_epoch, SAVE_EVERY))
        return step % every == 0 and step <= self.total - every

    def _save(self, optimiser: torch.optim.Optimizer, stop: Stop, step: int, tokens: int, seconds: float) -> None:
        tensors = {f"weights.{k}": v for k, v in self._weights().items()}
        tensors |= checkpoint.optimiser_tensors(optimiser, self.names)
        states: dict[str, dict[str, Any]] = {}
        for name, term in self.terms.items():
            for key, value in term.loss.state_dict().items():
                if isinstance(value, Tensor):
                    tensors[f"term.{name}.{key}"] = value
                else:
                    states.setdefault(name, {})[key] = value
        checkpoint.save(
            self.folder,
            step,
            tensors,
            {
                "stop": stop.state(),
                "reason": stop.reason,
                "sentence": stop.sentence,
                "tokens": tokens,
                "seconds": seconds,
                "log": self.context.log.length(),
                "compute": self.context.compute.state(),
                "terms": states,
            },
        )

    def _resume(self, optimiser: torch.optim.Optimizer, stop: Stop) -> tuple[int, int, float]:
        """(steps done, tokens, seconds) of the newest checkpoint, whose state is put back."""
        found = checkpoint.latest(self.folder)
        if found is None:
            if processes.main():
                self.context.log.drop(self.context.label)
            return 0, 0, 0.0
        tensors, state = found
        checkpoint.restore(self.model.module, tensors, "weights.")
        checkpoint.load_optimiser(optimiser, self.names, tensors)
        for name, term in self.terms.items():
            head = f"term.{name}."
            values = {k[len(head) :]: v for k, v in tensors.items() if k.startswith(head)}
            if kept := {**values, **state["terms"].get(name, {})}:
                term.loss.load_state_dict(kept)
        stop.load(state["stop"])
        stop.reason, stop.sentence = state["reason"], state["sentence"]
        self.context.compute.load(state["compute"])
        if processes.main():
            self.context.log.cut(state["log"])
        return int(state["step"]), int(state["tokens"]), float(state["seconds"])
