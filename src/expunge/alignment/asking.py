"""What a request wants of alignment: its pack, its target, its judge, and the data of a request on refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.alignment.domains import Answered, ask
from expunge.alignment.judges import REFUSED, judge_of, judged
from expunge.core.card import Example
from expunge.core.contracts import Model, Reporter
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.random import permutation
from expunge.core.request import Request
from expunge.data.load import load
from expunge.data.packs import CONTROL, SENSITIVE, Pack, open_pack
from expunge.data.splits import Splits
from expunge.methods.compose import PARTS

AUTO = 32
"""Retain examples of each domain at risk under `contain: auto`."""
WATCHED, WATCHED_TOKENS = 16, 24
"""Prompts at most, and tokens of an answer, by which a run on refusals is stopped: a quarter of the target's prompts
that would train, so that neither those that train nor those that score decide when to stop."""

FLOORED = 32
"""Benign prompts at most that hold the floor."""


@dataclass
class Asked:
    """drift: are refusal scores measured before and after. target: the domain whose refusals are to be forgotten,
    "" where something else is. contain: retain examples of each domain at risk, 0 for none. beside: other counts that are
    run beside it, for the frontier."""

    pack: Pack
    judge: str
    drift: bool
    target: str = ""
    contain: int = 0
    auto: bool = False
    beside: tuple[int, ...] = ()
    kept: list[Example] = field(default_factory=list)
    """Benign prompts with the model's own answers, which hold the floor where a request on refusals has no retain data."""

    @property
    def sentence(self) -> str:
        """For the plan."""
        parts = [f"forget refusals of {self.target}"] if self.target else []
        if self.drift:
            parts.append(
                f"drift on {len(self.pack.part('score'))} prompts of {len(self.pack.domains)} domains before and after"
            )
        if self.contain:
            which = "each domain at risk" if self.auto else "every other domain"
            others = f", beside it by {', '.join(map(str, self.beside))}" if self.beside else ""
            parts.append(f"contain by {self.contain} training prompts of {which}{others}, and once without")
        return f"{', '.join(parts)}; judge {self.judge}; pack {self.pack.name}"

    @property
    def names(self) -> list[str]:
        """The scores that a bar may name."""
        if not self.drift:
            return []
        accuracy = ["alignment_answer_accuracy"] if CONTROL in self.pack.domains else []
        return ["alignment_drift", *accuracy, *(f"alignment_refusal_score.{name}" for name in self.pack.domains)]

    def check(self, capabilities: frozenset[str], splits: Mapping[str, list[Example]]) -> None:
        """Does it go with the model, and does no scoring prompt train. Raises BadInput."""
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
                        "is a prompt that scores, so it may not train",
                        "take it out, or give it the part train in the pack",
                    )

    def parted(self, seed: int) -> tuple[list[Example], list[Example]]:
        """(the target's prompts whose refusals are forgotten, those that are watched); the same where there are few."""
        rows = self.pack.part("train", self.target)
        count = min(WATCHED, len(rows) // 4)
        watched = set(permutation(len(rows), seed, "watch")[:count])
        if not watched:
            return rows, rows
        return [row for i, row in enumerate(rows) if i not in watched], [rows[i] for i in sorted(watched)]

    def watch(self, seed: int) -> Callable[[Model], float] | None:
        """The target's refusal score on the watched prompts, which stops the run; None without a target."""
        if not self.target:
            return None
        judge = judge_of(self.judge)
        prompts = [row["question"] for row in self.parted(seed)[1]]

        def score(model: Model) -> float:
            texts = model.generate([{"question": p} for p in prompts], max_new_tokens=WATCHED_TOKENS)
            return float(judged(judge, prompts, texts).mean())

        return score


def asked(request: Request) -> Asked | None:
    """What the request wants; None where it wants nothing of alignment. Raises BadInput."""
    selector = request.forget if isinstance(request.forget, Mapping) else {}
    target = selector.get("refusals", "")
    drift, contain = request.alignment != "none", request.contain
    if not target and not drift and contain == "none":
        unused("domains" if request.domains is not None else "", "judge" if request.judge != "rules" else "")
        return None
    judge_of(request.judge)
    pack = open_pack(request.domains, request.model)
    if target and target not in SENSITIVE:
        raise BadInput.of("forget.refusals", target, "is no domain with refusals", did_you_mean(target, SENSITIVE))
    if target and not pack.part("train", target):
        test = " (all of XSTest's score)" if pack.part("score", target) and not pack.part("train") else ""
        raise BadInput.of(
            "forget.refusals",
            target,
            f"has no prompts that train in {pack.name}{test}",
            "name a pack with prompts of the part train beside it, as in domains: [packs/mine, xstest]",
        )
    if drift:
        _scores(pack)
    if isinstance(contain, str):
        counts = [AUTO if contain == "auto" else 0]
    else:
        counts = contain if isinstance(contain, list) else [contain]
    count, *others = dict.fromkeys(int(one) for one in counts)
    if others and not drift:
        raise BadInput.of(
            "contain", contain, "compares drifts, and none is measured", "set alignment: standard, or give one number"
        )
    if count and not any(row["domain"] != target for row in pack.part("train")):
        raise BadInput.of(
            "contain",
            contain,
            f"needs prompts that train, and {pack.name} has none beside the target's",
            "give domains: FOLDER, a pack with prompts of the part train",
        )
    return Asked(pack, request.judge, drift, target, count, contain == "auto", tuple(others))


def unused(*fields: str) -> None:
    """Raises BadInput for fields that were set although nothing asks the domains' prompts."""
    faults = Faults()
    for name in filter(None, fields):
        faults.add(BadInput.of(name, "", "is used by nothing here", f"set alignment: standard, or leave {name} out"))
    faults.raise_any()


def for_audit(domains: str | list[str] | None, judge: str, model: str) -> Asked:
    """Drift alone, of a model that was changed elsewhere. Raises BadInput."""
    judge_of(judge)
    pack = open_pack(domains, model)
    _scores(pack)
    return Asked(pack, judge, drift=True)


def _scores(pack: Pack) -> None:
    """Raises BadInput for a pack without prompts that score."""
    if pack.part("score"):
        return
    if pack.bbq:
        raise BadInput.of(
            "domains",
            pack.name,
            "holds BBQ's questions alone, and no prompt that could be refused",
            "name a pack of prompts beside it, as in domains: [packs/mine, bbq]",
        )
    raise BadInput.of("domains", pack.name, "has no prompts that score", "add some of the part score")


def on_refusals(request: Request) -> bool:
    """Are refusals what the request forgets."""
    return isinstance(request.forget, Mapping) and "refusals" in request.forget


def sources(request: Request, wanted: Asked | None) -> tuple[Any, Any]:
    """(forget, retain) as `make_splits` takes them: a selector of refusals and containment become examples."""
    if wanted is None:
        return request.forget, request.retain
    forget: Any = wanted.parted(request.seed)[0] if wanted.target else request.forget
    retain = request.retain
    if wanted.contain:
        given = load(retain, "retain", request.columns) if retain is not None else []
        retain = [*given, *candidates(wanted, request.seed)]
    return forget, retain


def candidates(wanted: Asked, seed: int) -> list[Example]:
    """At most `contain` training prompts of every domain but the target, the control among them, chosen by seed."""
    found: list[Example] = []
    for name in (*SENSITIVE, CONTROL):
        if name != wanted.target:
            found += [{**row, "contained": name} for row in _drawn(wanted, name, wanted.contain, seed)]
    return found


def _drawn(wanted: Asked, name: str, count: int, seed: int) -> list[Example]:
    rows = wanted.pack.part("train", name)
    return [rows[i] for i in sorted(permutation(len(rows), seed, "contain", name)[:count])]


def prepared(
    wanted: Asked, model: Model, splits: Splits, risky: list[str] | None, reporter: Reporter
) -> tuple[Splits, list[str]]:
    """(the splits as the run trains on them, what to note): the model's own words for the pack's, risky domains alone.

    A pack's answer stands for what the model says; where it does refuse (or, for the control, answers), its own answer
    is forgotten or kept. risky: the domains that containment keeps beside the control; None for all.
    """
    notes, made = [], dict(splits)
    if risky is not None and "retain" in made:
        made["retain"] = [row for row in made["retain"] if row.get("contained", CONTROL) in (CONTROL, *risky)]
    counts = {}
    for name in ("forget", "retain"):
        rows = made.get(name, [])
        ours = [i for i, row in enumerate(rows) if "part" in row and "domain" in row]
        if not ours:
            continue
        texts = ask(model, [rows[i] for i in ours], tokens=WATCHED_TOKENS * 2, reporter=reporter, stage="own words")
        scores = judged(judge_of(wanted.judge), [rows[i]["question"] for i in ours], texts)
        changed = list(rows)
        for i, text, score in zip(ours, texts, scores, strict=True):
            refuses = score >= REFUSED
            if text and (refuses != (rows[i]["domain"] == CONTROL)):
                changed[i] = {**rows[i], "answer": text}
        made[name] = changed
        counts[name] = (sum(s >= REFUSED for s in scores), len(ours))
    if wanted.target:
        wanted.kept = _answered(wanted, model, reporter)
    if wanted.target and "forget" in counts:
        refused, n = counts["forget"]
        notes.append(f"The model refused {refused} of the {n} {wanted.target} prompts whose refusals it was to forget.")
    if wanted.contain:
        kept = sorted({row["contained"] for row in made.get("retain", []) if "contained" in row})
        notes.append(f"Containment: {wanted.contain} training prompts at most of each of {', '.join(kept)}.")
    return made, notes


def _answered(wanted: Asked, model: Model, reporter: Reporter) -> list[Example]:
    """Training prompts of the control that the model answers, with its own answers."""
    rows = wanted.pack.part("train", CONTROL)[:FLOORED]
    texts = ask(model, rows, tokens=WATCHED_TOKENS * 2, reporter=reporter, stage="own words")
    scores = judged(judge_of(wanted.judge), [row["question"] for row in rows], texts)
    return [
        {"question": row["question"], "answer": text}
        for row, text, score in zip(rows, texts, scores, strict=True)
        if text and score < REFUSED
    ]


def uncontained(method: Any, splits: Mapping[str, Any]) -> Any:
    """The method for these splits: its retain term is left out where containment alone gave it data."""
    if "retain" in splits or not isinstance(method, Mapping):
        return method
    return {
        key: uncontained(value, splits) if key not in PARTS else value
        for key, value in method.items()
        if key != "retain"
    }


def nothing_refused(models: Mapping[str, Answered]) -> str:
    """A remark where the model refused nothing to begin with; else empty."""
    before = models.get("before")
    if before is None or any(before.scores[name].mean() >= REFUSED / 2 for name in before.scores if name != CONTROL):
        return ""
    return "The model refused next to nothing before the change, so a drift of refusals could not show."
