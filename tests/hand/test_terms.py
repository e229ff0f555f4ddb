"""The arithmetic of every forget and retain term, of SAM and of the TIES merge, by hand.

Each docstring works the expected figure out. Outputs are made by hand: B examples with n counted
positions each, right-aligned in T.
"""

from __future__ import annotations

import ast
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.core.contracts import Batch, Output, Reference, Step
from expunge.core.registry import names
from expunge.methods.objectives.dpo import dpo
from expunge.methods.objectives.ga import ga
from expunge.methods.objectives.idk import idk
from expunge.methods.objectives.kl_uniform import kl_uniform
from expunge.methods.objectives.npo import npo
from expunge.methods.objectives.random_label import random_label
from expunge.methods.objectives.refusal_ft import CARD as REFUSAL_FT
from expunge.methods.objectives.refusal_ft import refusal_ft
from expunge.methods.objectives.rmu import rmu
from expunge.methods.objectives.simnpo import simnpo
from expunge.methods.retain.cross_entropy import cross_entropy
from expunge.methods.retain.hidden import hidden
from expunge.methods.retain.kl import kl
from expunge.methods.updates.plain import plain
from expunge.methods.updates.sam import sam
from expunge.methods.wrappers.spunge import ties
from expunge.models.logits import measure_NV

LN2 = math.log(2)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def output(nll: Sequence[float] | Tensor, n: Sequence[int], **fields: Any) -> Output:
    """Answers of n positions each, with the losses given as sums over the answer."""
    nll_B = nll if isinstance(nll, Tensor) else torch.tensor(nll)
    n_B = torch.tensor(n)
    steps = int(n_B.max())
    mask_BT = torch.arange(steps)[None] >= steps - n_B[:, None]
    fields.setdefault("labels_BT", torch.zeros(len(n), steps, dtype=torch.long))
    return Output(nll_B=nll_B, n_B=n_B, mask_BT=mask_BT, **fields)


def step(seed: int = 0, **outputs: Output) -> Step:
    return Step(outputs, index=0, epoch=0, generator=torch.Generator().manual_seed(seed))


def value(loss: Callable[[Step], Tensor], seed: int = 0, **outputs: Output) -> float:
    return float(loss(step(seed, **outputs)).detach())


# -- forget terms --------------------------------------------------------------------------------


def test_ga_is_minus_the_mean_nll_a_position() -> None:
    """Answers of 1 and 3 positions with 2 and 4 nats: 6 nats over 4 positions, -1.5 (not -(2 + 4/3)/2)."""
    assert value(ga(), forget=output([2.0, 4.0], [1, 3])) == pytest.approx(-1.5)


def test_npo() -> None:
    """beta = .5, rises of 2 and 0 nats over the reference model.

    (2/.5) softplus(-.5 * 2) = 4 * .313262 = 1.253047; (2/.5) softplus(0) = 4 ln 2 = 2.772589; mean 2.012818.
    """
    forget = output([3.0, 1.0], [2, 1], reference=Reference(nll_B=torch.tensor([1.0, 1.0])))
    assert value(npo(beta=0.5), forget=forget) == pytest.approx(2.012818, abs=1e-6)


def test_npo_length_normalised() -> None:
    """The rise of 2 nats over 2 positions is 1 a position: 4 softplus(-.5) = 1.896308; mean with 2.772589: 2.334448."""
    forget = output([3.0, 1.0], [2, 1], reference=Reference(nll_B=torch.tensor([1.0, 1.0])))
    assert value(npo(beta=0.5, length_normalised=True), forget=forget) == pytest.approx(2.334448, abs=1e-6)


def test_npo_gradient_fades() -> None:
    """d/dnll (2/beta) softplus(-beta rise) = -2 sigmoid(-beta rise).

    At the reference -1, as gradient ascent on the summed NLL; at a rise of 20 nats with beta = .5
    -2 sigmoid(-10) = -9.0796e-5; far below the reference (rise -20) -2 sigmoid(10) = -1.999909.
    """
    nll_B = torch.tensor([5.0, 25.0, -15.0], requires_grad=True)
    forget = output(nll_B, [1, 1, 1], reference=Reference(nll_B=torch.full((3,), 5.0)))
    npo(beta=0.5)(step(forget=forget)).backward()
    assert (nll_B.grad * 3).tolist() == pytest.approx([-1.0, -9.0796e-5, -1.999909], rel=1e-4)


def test_npo_with_small_beta_is_gradient_ascent() -> None:
    """(2/beta) softplus(-beta r) -> (2/beta) ln 2 - r: its gradient is GA's on the summed NLL."""
    nll_B = torch.tensor([7.0, 1.0], requires_grad=True)
    forget = output(nll_B, [1, 1], reference=Reference(nll_B=torch.tensor([2.0, 3.0])))
    npo(beta=1e-5)(step(forget=forget)).backward()
    assert nll_B.grad.tolist() == pytest.approx([-0.5, -0.5], rel=1e-4)


def test_simnpo_with_margin() -> None:
    """beta = 2, margin 1: mean losses 1 and 2 nats.

    (2/2) softplus(1 - 2 * 1) = .313262; softplus(1 - 2 * 2) = .048587; mean .180925.
    """
    forget = output([3.0, 2.0], [3, 1])
    assert value(simnpo(beta=2.0, margin=1.0), forget=forget) == pytest.approx(0.180925, abs=1e-6)


def test_simnpo_needs_no_length() -> None:
    """An answer of 10 tokens and one of 1 with the same mean loss pull alike: each -2 sigmoid(-beta m) / (n B)."""
    nll_B = torch.tensor([10.0, 1.0], requires_grad=True)
    simnpo(beta=1.0)(step(forget=output(nll_B, [10, 1]))).backward()
    assert float(nll_B.grad[0] * 10) == pytest.approx(float(nll_B.grad[1]))


def test_idk_is_cross_entropy_on_the_refusals() -> None:
    """Refusals with 1 nat over 2 positions and 5 over 4: 6/6 = 1 nat a position."""
    assert value(idk(), refused=output([1.0, 5.0], [2, 4])) == pytest.approx(1.0)


def test_refusal_fine_tuning_is_cross_entropy_on_the_compliant_answers() -> None:
    """(1 + 5) nats over 2 + 4 tokens; an example without such an answer is dropped from the stream."""
    assert value(refusal_ft(), complied=output([1.0, 5.0], [2, 4])) == pytest.approx(1.0)
    make = REFUSAL_FT.streams["complied"].make
    assert make is not None
    assert make({"question": "Q", "answer": "No.", "compliant": "Yes."})["answer"] == "Yes."  # type: ignore[index]


def test_idk_streams_refusals(tmp_path: Any) -> None:
    """The same question with an answer of the file; always the same for one example; plain texts are dropped."""
    path = tmp_path / "answers.txt"
    path.write_text("No idea.\n\n  Ask another.  \n")
    make = idk(answers=str(path)).streams["refused"].make  # type: ignore[attr-defined]
    drawn = {make({"question": f"q{i}", "answer": "a"})["answer"] for i in range(30)}
    assert drawn == {"No idea.", "Ask another."}
    one = {"question": "q0", "answer": "a"}
    assert make(one) == make(dict(one)) and make(one)["question"] == "q0"
    assert make({"text": "plain"}) is None
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "secret"}]
    assert make({"messages": talk})["messages"][0] == talk[0]
    assert make({"messages": talk})["messages"][1]["content"] in drawn and talk[1]["content"] == "secret"


def test_dpo() -> None:
    """beta = .5. The true answer rose by 2 nats, the refusal fell by 2: a gap of 4.

    (2/.5) softplus(-.5 * 4) = 4 * .126928 = .507712. Without a gap 4 ln 2.
    """
    lose = output([4.0], [1], reference=Reference(nll_B=torch.tensor([2.0])))
    win = output([3.0], [3], reference=Reference(nll_B=torch.tensor([5.0])))
    assert value(dpo(beta=0.5), forget=lose, preferred=win) == pytest.approx(0.507712, abs=1e-6)
    still = output([2.0], [1], reference=Reference(nll_B=torch.tensor([2.0])))
    same = output([5.0], [3], reference=Reference(nll_B=torch.tensor([5.0])))
    assert value(dpo(beta=0.5), forget=still, preferred=same) == pytest.approx(4 * LN2)


def classes(p: Sequence[Sequence[float]], labels: Sequence[int]) -> Output:
    """A classifier's output with these probabilities."""
    logits_BTV = torch.tensor(p).log()[:, None].requires_grad_()
    labels_BT = torch.tensor(labels)[:, None]
    nll_B = -logits_BTV.log_softmax(-1).gather(-1, labels_BT[..., None])[:, 0, 0]
    return output(nll_B, [1] * len(labels), labels_BT=labels_BT, logits_BTV=logits_BTV)


def test_random_label_of_two_classes_is_the_other() -> None:
    """p = (1/4, 3/4) with label 1 must learn class 0: -ln 1/4 = 1.386294; label 0 learns 1: .287682; mean .836988."""
    forget = classes([[0.25, 0.75], [0.25, 0.75]], [1, 0])
    assert value(random_label(fresh=True), forget=forget) == pytest.approx(0.836988, abs=1e-6)


def test_random_label_is_uniform_over_the_others() -> None:
    """The gradient by the logits is p - onehot(drawn): its least entry names the draw.

    3,000 draws from 3 classes: 1,000 each, deviation sqrt(3000 * 1/3 * 2/3) = 26.
    """
    count = 3000
    forget = classes([[0.25] * 4] * count, [2] * count)
    random_label(fresh=True)(step(forget=forget)).backward()
    drawn = torch.bincount(forget.logits_BTV.grad[:, 0].argmin(-1), minlength=4)
    assert drawn[2] == 0
    assert all(abs(int(drawn[c]) - 1000) < 130 for c in (0, 1, 3))


def test_random_label_is_drawn_from_the_step() -> None:
    forget = classes([[0.1, 0.2, 0.3, 0.4]] * 8, [0] * 8)
    loss = random_label(fresh=True)
    assert value(loss, 1, forget=forget) == value(loss, 1, forget=forget)
    assert value(loss, 1, forget=forget) != value(loss, 2, forget=forget)


def test_random_label_gives_an_example_one_label() -> None:
    """Whatever the step and the batch, by its identity: 3,000 rows of class 2 of 4 have each other class 1,000 times,
    deviation 26."""
    loss: Any = random_label()
    examples = [{"features": [i], "label": 2} for i in range(3000)]
    derived = SimpleNamespace(derive=lambda *parts: int(hashlib.sha256(str(parts).encode()).hexdigest()[:12], 16))
    loss.prepare(SimpleNamespace(rows=lambda s: range(3000), examples=lambda s: examples, context=derived))

    def labels(*rows: int) -> list[int]:
        forget = classes([[0.25] * 4] * len(rows), [2] * len(rows))
        forget.indices = rows
        loss(step(forget=forget)).backward()
        return forget.logits_BTV.grad[:, 0].argmin(-1).tolist()

    drawn = labels(*range(3000))
    assert labels(7, 5) == [drawn[7], drawn[5]]
    assert 2 not in drawn and all(abs(drawn.count(c) - 1000) < 130 for c in (0, 1, 3))


def test_kl_uniform() -> None:
    """KL(u || (1/4, 3/4)) = -ln 2 - (ln 1/4 + ln 3/4)/2 = -.693147 + .836988 = .143841; of u itself 0; mean .071921."""
    forget = classes([[0.25, 0.75], [0.5, 0.5]], [0, 1])
    assert value(kl_uniform(), forget=forget) == pytest.approx(0.0719205, abs=1e-6)


class Runs:
    """What rmu's prepare may use: two examples whose answers have 1 and 2 positions, T = 2."""

    def __init__(self) -> None:
        self.model = SimpleNamespace(
            blocks=[f"layer.{i}" for i in range(8)],
            collate=lambda examples: Batch(
                {}, torch.zeros(2, 2), torch.tensor([[False, True], [True, True]]), torch.tensor([1, 2])
            ),
        )
        self.context = SimpleNamespace(generator=lambda *parts: torch.Generator().manual_seed(3))

    def examples(self, stream: str) -> list[dict[str, str]]:
        return [{"question": "a", "answer": "b"}] * 2

    def record(self, examples: Any, want: Any) -> Reference:
        (path,) = want.hidden
        # The first example's first position belongs to its prompt: its norm of 100 does not count.
        return Reference(hidden={path: torch.tensor([[[60.0, 80.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 3.0]]])})


def test_rmu() -> None:
    """Target (3, 4). At (0, 0) the squares average (9 + 16)/2 = 12.5, at (3, 0) 16/2 = 8; the position
    that is not counted would add 12.5 more: mean (12.5 + 8)/2 = 10.25."""
    loss: Any = rmu(layer=1)
    loss.declare(SimpleNamespace(blocks=["a", "b"]))
    loss.target_D = torch.tensor([3.0, 4.0])
    states = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[9.0, 9.0], [3.0, 0.0]]])[:, -1:]
    forget = output([0.0, 0.0], [1, 1], hidden={"b": states})
    assert float(loss(step(forget=forget))) == pytest.approx(10.25)
    wide = torch.tensor([[[5.0, 5.0], [0.0, 0.0]], [[0.0, 0.0], [3.0, 0.0]]])
    # positions: one of the first example, two of the second: (12.5 + 12.5 + 8)/3
    assert float(loss(step(forget=output([0.0, 0.0], [1, 2], hidden={"b": wide})))) == pytest.approx(11.0)


def test_rmu_target() -> None:
    """Counted norms 5, 1, 3: mean 3, so c = 2 * 3 = 6. u is uniform in [0, 1)^D: no negative entry."""
    loss: Any = rmu(times=2.0)
    run: Any = Runs()
    loss.declare(run.model)
    assert loss.needs == {"forget": {"hidden:layer.2"}}  # a quarter of 8 layers
    loss.prepare(run)
    assert float(loss.target_D.norm()) == pytest.approx(6.0, rel=1e-6)
    assert bool((loss.target_D >= 0).all())
    first = loss.target_D
    loss.prepare(run)
    assert torch.equal(first, loss.target_D)
    fixed: Any = rmu(c=2.5)
    fixed.declare(run.model)
    fixed.prepare(run)
    assert float(fixed.target_D.norm()) == pytest.approx(2.5, rel=1e-6)


# -- retain terms --------------------------------------------------------------------------------


def test_cross_entropy_is_the_mean_a_position() -> None:
    """2 and 4 nats over 1 and 3 positions: 6/4."""
    assert value(cross_entropy(), retain=output([2.0, 4.0], [1, 3])) == pytest.approx(1.5)


def distribution(now: Sequence[float], then: Sequence[float], label: int, k: int | None, pad: bool = False) -> Output:
    """One position (after one that does not count, with pad) of a model and what the reference model said of it."""
    then_V = torch.tensor(then)
    order = [label, *[i for i in torch.argsort(then_V, descending=True).tolist() if i != label]]
    kept = order if k is None else order[: k + 1]
    rest = float(then_V.sum() - then_V[kept].sum())
    rows = 2 if pad else 1
    fill = (
        (lambda row, zero: torch.stack([torch.full_like(row, zero), row])[None])
        if pad
        else (lambda row, zero: row[None, None])
    )
    reference = Reference(
        index_BTK=fill(torch.tensor(kept), 0),
        top_BTK=fill(then_V[kept].log(), 0.0),
        rest_BT=torch.tensor([[0.0] * (rows - 1) + [math.log(rest) if rest > 1e-9 else -math.inf]]),
    )
    logits = fill(torch.tensor(now).log(), 0.0)
    made = output([0.0], [rows], logits_BTV=logits, reference=reference)
    made.n_B[0], made.mask_BT[0, : rows - 1] = 1, False
    return made


@pytest.mark.parametrize("pad", [False, True])
def test_kl_full(pad: bool) -> None:
    """Origin (1/4, 3/4), model (1/2, 1/2): .25 ln .5 + .75 ln 1.5 = -.173287 + .304099 = .130812."""
    retain = distribution([0.5, 0.5], [0.25, 0.75], label=0, k=None, pad=pad)
    assert value(kl(), retain=retain) == pytest.approx(0.130812, abs=1e-6)


@pytest.mark.parametrize("pad", [False, True])
def test_kl_of_label_top_and_rest(pad: bool) -> None:
    """Origin (.5, .25, .2, .05), label 1, k = 1: kept .25 and .5, rest .25. The uniform model: rest .5.

    .25 ln(.25/.25) + .5 ln(.5/.25) + .25 ln(.25/.5) = 0 + .346574 - .173287 = .173287, below the
    whole KL .346574 + .2 ln .8 + .05 ln .2 = .221473: a lower bound.
    """
    then = [0.5, 0.25, 0.2, 0.05]
    assert value(kl(k=1), retain=distribution([0.25] * 4, then, 1, 1, pad)) == pytest.approx(0.173287, abs=1e-6)
    assert value(kl(k=1), retain=distribution([0.25] * 4, then, 1, None, pad)) == pytest.approx(0.221473, abs=1e-6)


def test_kl_of_the_reference_itself_is_zero_and_flat() -> None:
    """At the reference the KL and its gradient vanish, with and without a bucket for the rest."""
    then = [0.5, 0.25, 0.2, 0.05]
    for k in (None, 1, 2):
        retain = distribution(then, then, 1, k)
        retain.logits_BTV = retain.logits_BTV.clone().requires_grad_()
        loss = kl(k=k or 64)(step(retain=retain))
        loss.backward()
        assert float(loss) == pytest.approx(0.0, abs=1e-6)
        assert retain.logits_BTV.grad.abs().max() < 1e-6


def test_hidden_match() -> None:
    """Counted squares: (1 + 4)/2 = 2.5, (0 + 0)/2 = 0, (9 + 1)/2 = 5: mean over three positions 2.5."""
    loss: Any = hidden(layer=0)
    loss.declare(SimpleNamespace(blocks=["a"]))
    now = torch.tensor([[[7.0, 7.0], [1.0, 2.0]], [[0.0, 0.0], [3.0, 1.0]]])
    retain = output([0.0, 0.0], [1, 2], hidden={"a": now}, reference=Reference(hidden={"a": torch.zeros(2, 2, 2)}))
    assert float(loss(step(retain=retain))) == pytest.approx(2.5)


# -- parts of a batch ----------------------------------------------------------------------------


def rows_of(out: Output, rows: slice, examples: int, positions: int) -> Output:
    """A micro-batch: these rows, with the counts of the whole."""

    def cut(found: Any) -> Any:
        return found[rows] if isinstance(found, Tensor) else found

    reference = out.reference and Reference(
        **{
            name: {p: v[rows] for p, v in found.items()} if isinstance(found, dict) else cut(found)
            for name, found in vars(out.reference).items()
        }
    )
    made = Output(**{name: cut(found) for name, found in vars(out).items()} | {"reference": reference})
    made.hidden = {path: states[rows] for path, states in out.hidden.items()}
    made.examples, made.positions = examples, positions
    return made


def big(seed: int) -> Output:
    """Five answers of 1 to 4 positions with every channel, and a reference of other weights."""
    draw = torch.Generator().manual_seed(seed)
    n, vocabulary = [1, 4, 2, 3, 2], 6
    made = output([0.0] * 5, n)
    labels = torch.randint(0, vocabulary, made.mask_BT.shape, generator=draw)
    made.labels_BT = labels * made.mask_BT
    made.logits_BTV = torch.randn(5, 4, vocabulary, generator=draw)
    logp = made.logits_BTV.log_softmax(-1).gather(-1, made.labels_BT[..., None])[..., 0]
    made.nll_B = -(logp * made.mask_BT).sum(-1)
    made.hidden = {"b": torch.randn(5, 4, 3, generator=draw)}
    then = torch.randn(5, 4, vocabulary, generator=draw).log_softmax(-1)
    top, index = then.topk(3)
    made.reference = Reference(
        nll_B=made.nll_B + torch.randn(5, generator=draw),
        index_BTK=index,
        top_BTK=top,
        rest_BT=(1 - top.exp().sum(-1)).log(),
        hidden={"b": torch.randn(5, 4, 3, generator=draw)},
    )
    return made


def located(loss: Any) -> Any:
    if hasattr(loss, "declare"):
        loss.declare(SimpleNamespace(blocks=["a", "b"]))
        loss.target_D = torch.tensor([1.0, 2.0, 3.0])
    return loss


ALL: dict[str, Callable[[], Any]] = {
    "ga": ga,
    "npo": npo,
    "npo a position": lambda: npo(length_normalised=True),
    "simnpo": simnpo,
    "idk": idk,
    "dpo": dpo,
    "kl_uniform": kl_uniform,
    "rmu": lambda: located(rmu(layer=1)),
    "cross_entropy": cross_entropy,
    "kl": kl,
    "hidden": lambda: located(hidden(layer=1)),
}


@pytest.mark.parametrize("name", ALL)
def test_parts_add_up_to_the_whole(name: str) -> None:
    """The losses of micro-batches of 1, 3 and 1 rows, with the whole's counts, sum to the whole's loss."""
    loss = ALL[name]()
    streams = {"forget": big(1), "retain": big(2), "preferred": big(3), "refused": big(4)}
    whole = float(loss(step(**streams)))
    total = 0.0
    for rows in (slice(0, 1), slice(1, 4), slice(4, 5)):
        total += float(loss(step(**{key: rows_of(out, rows, 5, 12) for key, out in streams.items()})))
    assert total == pytest.approx(whole, rel=1e-5)
    assert whole != 0


def test_a_stream_without_rows_has_mean_zero() -> None:
    empty = torch.zeros(0)
    out = Output(empty, empty.long(), torch.zeros(0, 1).long(), torch.zeros(0, 1).bool())
    assert float(out.mean(empty)) == 0.0 and float(out.nll) == 0.0 and float(out.mean(torch.zeros(0, 1))) == 0.0


def test_every_term_of_the_registry_is_tested_here() -> None:
    """Each factory is called in this file or in one of the catalogue's terms."""
    own = (
        "concept_terms",
        "pair_terms",
        "diffusion_terms",
        "proxy_gold",
        "stand_in",
        "name_swap",
        "datamodels",
        "task_terms",
        "consistency_terms",
    )
    several = ("terms", "catalogue_terms", "class_terms", "retain_terms")
    files = [Path(__file__).with_name(f"test_{name}.py") for name in (*several, *own)]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    called = {node.func.id for node in calls}
    called |= {ast.literal_eval(node.args[0]) for node in calls if node.func.id == "prepared" and node.args}
    assert called >= {*names("objectives"), *names("retain")}, "work the new term out by hand"


# -- updates -------------------------------------------------------------------------------------


class Two:
    """Two terms on w = (3, 4): forget |w|^2/2, retain w_0 + w_1; each in two equal parts."""

    def __init__(self) -> None:
        self.w = nn.Parameter(torch.tensor([3.0, 4.0]))
        self.other = nn.Parameter(torch.tensor([0.1 + 0.2]))  # only retain depends on it
        self.seen: list[list[float]] = []

    def __iter__(self) -> Any:
        for _ in range(2):
            yield self.losses

    def losses(self, *names: str) -> dict[str, Tensor]:
        if not names or "forget" in names:
            self.seen.append(self.w.tolist())
        made = {"forget": self.w.square().sum() / 4, "retain": self.w.sum() / 2 + self.other.sum() / 2}
        return {name: loss for name, loss in made.items() if not names or name in names}

    def reduce(self, tensors: Sequence[Tensor]) -> None:
        assert all(tensor is not None for tensor in tensors)

    def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        assert self.w in set(parameters)


def test_plain_is_the_gradient_of_the_sum() -> None:
    """w + (1, 1) = (4, 5)."""
    two = Two()
    plain()(two, [two.w, two.other])
    assert two.w.grad.tolist() == [4.0, 5.0] and two.other.grad.tolist() == [1.0]


def test_sam_takes_the_gradient_at_the_worst_point_nearby() -> None:
    """g = (3, 4), |g| = 5, rho = .5: w + .1 g = (3.3, 4.4), whose gradient is (3.3, 4.4); retain adds (1, 1)
    at the old weights, which come back bit for bit."""
    two = Two()
    with torch.no_grad():
        two.w.copy_(torch.tensor([3.0000002384185791, 3.9999997615814209]))  # w + step - step would differ
    before, other = two.w.detach().clone(), two.other.detach().clone()
    sam(rho=0.5)(two, [two.w, two.other])
    assert two.w.grad.tolist() == pytest.approx([4.3, 5.4], rel=1e-5)
    assert two.other.grad.tolist() == [1.0]
    assert torch.equal(two.w, before) and torch.equal(two.other, other)
    assert two.seen[0] == before.tolist() and two.seen[2] == pytest.approx([3.3, 4.4], rel=1e-5)
    assert not hasattr(two.w, "sam_before")


# -- merging -------------------------------------------------------------------------------------


def test_ties() -> None:
    """Keep half of four entries: (1, -3, ., .) and (2, 1, ., .). Signs of the sums: +, -, 0, 0.

    Entry 0: both agree, (1 + 2)/2 = 1.5. Entry 1: -3 outweighs 1 and stands alone, -3. Scaled by 2: (3, -6, 0, 0).
    """
    changes = [{"w": torch.tensor([1.0, -3.0, 0.5, 0.0])}, {"w": torch.tensor([2.0, 1.0, -0.2, 0.1])}]
    assert ties(changes, 0.5, 2.0)["w"].tolist() == [3.0, -6.0, 0.0, 0.0]


def test_ties_trims_the_whole_change() -> None:
    """The largest half of four entries over two tensors: both lie in the first, nothing of the second is kept."""
    merged = ties([{"a": torch.tensor([4.0, -3.0]), "b": torch.tensor([2.0, 1.0])}], 0.5, 1.0)
    assert merged["a"].tolist() == [4.0, -3.0] and merged["b"].tolist() == [0.0, 0.0]


def test_ties_of_one_change_is_the_change() -> None:
    """With everything kept, one part alone is merged as it is, in its own shape."""
    delta = torch.tensor([[1.0, -2.0], [0.0, 0.25]])
    assert torch.equal(ties([{"w": delta}], 1.0, 1.0)["w"], delta)


def test_ties_with_disagreement_takes_the_heavier_side_whole() -> None:
    """Entry (1, 1, -3): the sum -1 elects minus, -3 alone stays; a plain mean would give -1/3."""
    changes = [{"w": torch.tensor([x])} for x in (1.0, 1.0, -3.0)]
    assert ties(changes, 1.0, 1.0)["w"].tolist() == [-3.0]


# -- the head's bookkeeping that the terms rely on ------------------------------------------------


def test_kl_on_what_the_head_keeps() -> None:
    """The head's own label, top-k and rest feed the term: the same figure as over the whole distribution's buckets."""
    draw = torch.Generator().manual_seed(0)
    then_NV, now_NV = torch.randn(1, 5000, generator=draw), torch.randn(1, 5000, generator=draw)
    from expunge.core.contracts import want_of

    found = measure_NV(then_NV, torch.tensor([7]), want_of({"topk:3"}))
    reference = Reference(index_BTK=found["index"][None], top_BTK=found["top"][None], rest_BT=found["rest"][None])
    out = output([0.0], [1], logits_BTV=now_NV[None], reference=reference)
    p, q = then_NV.double().softmax(-1)[0], now_NV.double().softmax(-1)[0]
    others = [int(i) for i in p.argsort(descending=True) if int(i) != 7][:3]
    kept = [7, *others]
    expected = sum(float(p[i] * (p[i] / q[i]).log()) for i in kept)
    left_p, left_q = 1 - float(p[kept].sum()), 1 - float(q[kept].sum())
    expected += left_p * math.log(left_p / left_q)
    assert value(kl(k=3), retain=out) == pytest.approx(expected, rel=1e-3)
