"""The alignment part of a request: its pack of prompts, its target, its judge, and how much it contains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from expunge.alignment.judges import judge_of, refusal_scores
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.random import permutation
from expunge.core.request import Request
from expunge.data.packs import CONTROL, SENSITIVE, Pack, open_pack

AUTO_CONTAIN = 32
"""Retain examples of each domain at risk under `contain: auto`."""
WATCHED_PROMPTS, WATCHED_TOKENS = 16, 24
"""Most prompts, and tokens per answer, that decide when a run on refusals stops. The prompts are at most a quarter of
the target's training prompts, so that neither those that train nor those that score decide it."""


@dataclass
class AlignmentSpec:
    """The alignment part of a request.

    drift: whether refusal scores are measured before and after. target: the domain whose refusals are to be forgotten,
    "" where the request forgets something else. contain: retain examples of each domain at risk, 0 for none. auto: the
    domains at risk are found by foresight. other_counts: further values of `contain`, each run too, for the frontier.
    """

    pack: Pack
    judge: str
    drift: bool
    target: str = ""
    contain: int = 0
    auto: bool = False
    other_counts: tuple[int, ...] = ()
    floor_rows: list[Example] = field(default_factory=list)
    """Benign prompts with the model's own answers. They set the retain floor of a request on refusals without retain
    data."""

    @classmethod
    def from_request(cls, request: Request) -> AlignmentSpec | None:
        """The request's alignment part; None where it has none. Raises BadInput."""
        selector = request.forget if isinstance(request.forget, Mapping) else {}
        target = selector.get("refusals", "")
        drift = request.alignment != "none"
        if not target and not drift and request.contain == "none":
            reject_unused("domains" if request.domains is not None else "", "judge" if request.judge != "rules" else "")
            return None
        judge_of(request.judge)
        pack = open_pack(request.domains, request.model)
        if target:
            _check_target(target, pack)
        if drift:
            _check_scoring_prompts(pack)
        count, *others = _contain_counts(request.contain)
        if others and not drift:
            raise BadInput.of(
                "contain",
                request.contain,
                "compares drifts, but no drift is measured",
                "set alignment: standard, or give one number",
            )
        if count and not any(row["domain"] != target for row in pack.part("train")):
            raise BadInput.of(
                "contain",
                request.contain,
                f"needs training prompts, but {pack.name} has none outside the target domain",
                "give domains: FOLDER, a pack with prompts of the part train",
            )
        return cls(pack, request.judge, drift, target, count, request.contain == "auto", tuple(others))

    @classmethod
    def for_audit(cls, domains: str | list[str] | None, judge: str, model: str) -> AlignmentSpec:
        """Drift alone, for a model that was changed elsewhere. Raises BadInput."""
        judge_of(judge)
        pack = open_pack(domains, model)
        _check_scoring_prompts(pack)
        return cls(pack, judge, drift=True)

    @property
    def sentence(self) -> str:
        """The spec in words, for the plan."""
        parts = [f"forget refusals of {self.target}"] if self.target else []
        if self.drift:
            parts.append(
                f"drift on {len(self.pack.part('score'))} prompts of {len(self.pack.domains)} domains before and after"
            )
        if self.contain:
            domains = "each domain at risk" if self.auto else "every other domain"
            others = f" (also with {', '.join(map(str, self.other_counts))})" if self.other_counts else ""
            parts.append(f"contain with {self.contain} training prompts of {domains}{others}, and once without")
        return f"{', '.join(parts)}; judge {self.judge}; pack {self.pack.name}"

    @property
    def names(self) -> list[str]:
        """The scores that an acceptance criterion may name."""
        if not self.drift:
            return []
        accuracy = ["alignment_answer_accuracy"] if CONTROL in self.pack.domains else []
        return ["alignment_drift", *accuracy, *(f"alignment_refusal_score.{name}" for name in self.pack.domains)]

    def check(self, capabilities: frozenset[str], splits: Mapping[str, list[Example]]) -> None:
        """Refuse a model that writes no text, and scoring prompts that would train. Raises BadInput."""
        if "generate" not in capabilities:
            raise BadInput.of(
                "alignment",
                "standard" if self.drift else "none",
                "needs a model that writes answers",
                "set alignment: none and contain: none, or give a language model",
            )
        scoring = {row["question"] for row in self.pack.part("score")}
        for name in ("forget", "retain"):
            for i, row in enumerate(splits.get(name, [])):
                if row.get("question") in scoring:
                    raise BadInput.of(
                        name,
                        f"row {i + 1}",
                        "is a scoring prompt, so it must not train",
                        "take it out, or give it the part train in the pack",
                    )

    def split_target(self, seed: int) -> tuple[list[Example], list[Example]]:
        """(the target's prompts whose refusals are forgotten, those that are watched); the same where there are few."""
        rows = self.pack.part("train", self.target)
        count = min(WATCHED_PROMPTS, len(rows) // 4)
        watched = set(permutation(len(rows), seed, "watch")[:count])
        if not watched:
            return rows, rows
        return [row for i, row in enumerate(rows) if i not in watched], [rows[i] for i in sorted(watched)]

    def stopping_score(self, seed: int) -> Callable[[Model], float] | None:
        """The target's refusal score on the watched prompts, by which the run stops; None without a target."""
        if not self.target:
            return None
        judge = judge_of(self.judge)
        prompts = [row["question"] for row in self.split_target(seed)[1]]

        def score(model: Model) -> float:
            texts = model.generate([{"question": p} for p in prompts], max_new_tokens=WATCHED_TOKENS)
            return float(refusal_scores(judge, prompts, texts).mean())

        return score


def reject_unused(*fields: str) -> None:
    """Raise BadInput for fields that were set although no domain's prompts are asked; empty names do not count."""
    faults = Faults()
    for name in filter(None, fields):
        faults.add(BadInput.of(name, "", "is used by nothing here", f"set alignment: standard, or leave {name} out"))
    faults.raise_any()


def on_refusals(request: Request) -> bool:
    """Whether the request forgets refusals."""
    return isinstance(request.forget, Mapping) and "refusals" in request.forget


def _contain_counts(contain: str | int | list[int]) -> list[int]:
    """The distinct counts of the field `contain`, the run's own first."""
    if isinstance(contain, str):
        return [AUTO_CONTAIN if contain == "auto" else 0]
    counts = contain if isinstance(contain, list) else [contain]
    return list(dict.fromkeys(int(count) for count in counts))


def _check_target(target: str, pack: Pack) -> None:
    """Raise BadInput for a target that is not a sensitive domain or has no training prompts."""
    if target not in SENSITIVE:
        raise BadInput.of("forget.refusals", target, "is not a sensitive domain", did_you_mean(target, SENSITIVE))
    if not pack.part("train", target):
        test = " (all of XSTest's score)" if pack.part("score", target) and not pack.part("train") else ""
        raise BadInput.of(
            "forget.refusals",
            target,
            f"has no training prompts in {pack.name}{test}",
            "add a pack with prompts of the part train, as in domains: [packs/mine, xstest]",
        )


def _check_scoring_prompts(pack: Pack) -> None:
    """Raise BadInput for a pack without scoring prompts."""
    if pack.part("score"):
        return
    if pack.bbq:
        raise BadInput.of(
            "domains",
            pack.name,
            "holds BBQ's questions alone, and no prompt that could be refused",
            "add a pack of prompts, as in domains: [packs/mine, bbq]",
        )
    raise BadInput.of("domains", pack.name, "has no scoring prompts", "add some of the part score")
