"""The arithmetic of the catalogue's further terms, updates and masks, by hand; docstrings work the figures out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_terms import output, softplus, step, value
from torch import Tensor, nn

from expunge.core.contracts import Output, Reference
from expunge.core.errors import BadInput
from expunge.methods._distribution import lower_label, tempered_kl_BT
from expunge.methods._masks import mask_largest
from expunge.methods._refusals import is_refusal
from expunge.methods._traces import trace_as_answer
from expunge.methods.compose import compose
from expunge.methods.objectives.altpo import altpo
from expunge.methods.objectives.bidistill import bidistill
from expunge.methods.objectives.ceu import ceu
from expunge.methods.objectives.circuit_breaker import circuit_breaker
from expunge.methods.objectives.dto import dto, without_question
from expunge.methods.objectives.flat import flat
from expunge.methods.objectives.kto import kto
from expunge.methods.objectives.pdu import pdu
from expunge.methods.objectives.prompt_decouple import in_some_form, prompt_decouple
from expunge.methods.objectives.r2mu import r2mu
from expunge.methods.objectives.satimp import satimp
from expunge.methods.objectives.scrub import scrub
from expunge.methods.objectives.undial import undial
from expunge.methods.objectives.wga import wga
from expunge.methods.objectives.whp import generic_labels, whp
from expunge.methods.retain.l1 import l1
from expunge.methods.retain.values import values
from expunge.methods.updates.ilu import ilu
from expunge.methods.updates.multi_objective import weights_of
from expunge.methods.updates.soul import Sophia, soul
from expunge.methods.wrappers.coreset import moderation
from worlds import write


def tokens(p: Sequence[float], **fields: Any) -> Output:
    """One answer whose tokens have these probabilities."""
    logp_BT = torch.tensor([p]).log().requires_grad_()
    return output(-logp_BT.sum(-1), [len(p)], logp_BT=logp_BT, **fields)


def distributions(p: Sequence[Sequence[float]], labels: Sequence[int], **fields: Any) -> Output:
    """One answer: the distribution at each of its positions, and the labels."""
    logits_BTV = torch.tensor([p]).log().requires_grad_()
    labels_BT = torch.tensor([labels])
    nll_B = -logits_BTV.log_softmax(-1).gather(-1, labels_BT[..., None])[..., 0].sum(-1)
    return output(nll_B, [len(p)], labels_BT=labels_BT, logits_BTV=logits_BTV, **fields)


def test_wga_weighs_each_token_by_its_likelihood() -> None:
    """p = 1/2 and 1/4, beta 1: (.5 ln .5 + .25 ln .25)/2 = (-.346574 - .346574)/2; the weight has no gradient."""
    forget = tokens([0.5, 0.25])
    loss = wga()(step(forget=forget))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.346574, abs=1e-6)
    assert forget.logp_BT.grad.tolist()[0] == pytest.approx([0.25, 0.125])


def test_wga_with_beta_0_is_gradient_ascent() -> None:
    assert value(wga(beta=0.0), forget=tokens([0.5, 0.25])) == pytest.approx((math.log(0.5) + math.log(0.25)) / 2)


def test_satimp() -> None:
    """p = 1/2, beta1 2, beta2 1: .25 * .5 * ln .5 = -.0866434; a certain token weighs nothing."""
    assert value(satimp(beta1=2.0, beta2=1.0), forget=tokens([0.5])) == pytest.approx(-0.0866434, abs=1e-6)
    assert value(satimp(), forget=tokens([1.0])) == pytest.approx(0.0, abs=1e-7)


def test_ceu_leaves_the_true_token_out_and_the_first_alone() -> None:
    """Second token: p = (.5, .25, .25), label 0: the target is (0, .5, .5), -ln .25 = 1.386294; over 2 positions
    .693147."""
    forget = distributions([[0.5, 0.25, 0.25]] * 2, [0, 0])
    assert value(ceu(), forget=forget) == pytest.approx(0.693147, abs=1e-6)
    assert value(ceu(ignore_first=0), forget=forget) == pytest.approx(1.386294, abs=1e-6)


def reference(p: Sequence[float], label: int) -> Reference:
    """The whole distribution of one position, the label first."""
    order = [label, *(i for i in sorted(range(len(p)), key=lambda i: -p[i]) if i != label)]
    return Reference(
        index_BTK=torch.tensor([[order]]),
        top_BTK=torch.tensor([[[p[i] for i in order]]]).log(),
        rest_BT=torch.full((1, 1), -torch.inf),
    )


def test_undial_lowers_the_label_of_the_origin() -> None:
    """Origin (.5, .5), label 0, beta ln 3: (1/4, 3/4). The uniform model: ln 2; the target itself: its entropy
    .562335."""
    then = reference([0.5, 0.5], 0)
    top, rest = lower_label(then, math.log(3))
    assert top.exp()[0, 0].tolist() == pytest.approx([0.25, 0.75]) and float(rest.exp().sum()) == 0.0
    loss = undial(beta=math.log(3))
    assert value(loss, forget=distributions([[0.5, 0.5]], [0], reference=then)) == pytest.approx(math.log(2), abs=1e-6)
    assert value(loss, forget=distributions([[0.25, 0.75]], [0], reference=then)) == pytest.approx(0.562335, abs=1e-6)


def test_lowered_keeps_what_is_left_for_the_rest() -> None:
    """Label .5, another .25, rest .25; beta ln 2 halves the label: .25, .25, .25 of .75."""
    then = Reference(top_BTK=torch.tensor([[[0.5, 0.25]]]).log(), rest_BT=torch.tensor([[0.25]]).log())
    top, rest = lower_label(then, math.log(2))
    assert top.exp()[0, 0].tolist() == pytest.approx([1 / 3, 1 / 3]) and float(rest.exp()) == pytest.approx(1 / 3)


def test_kto_measures_from_where_retain_stood_the_step_before() -> None:
    """beta 1: rise 0, point 0: 2 (1 - .5) = 1. Retain gained 2 nats: the point is 2, 2 (1 - sigmoid(2)) = .238406."""
    loss = kto(beta=1.0)
    forget = output([3.0], [1], reference=Reference(nll_B=torch.tensor([3.0])))
    retain = output([1.0], [1], reference=Reference(nll_B=torch.tensor([3.0])))
    one = step(forget=forget, retain=retain)
    assert float(loss(one)) == pytest.approx(1.0)
    loss.after_step(0, one.notes)  # type: ignore[attr-defined]
    assert value(loss, forget=forget, retain=retain) == pytest.approx(0.238406, abs=1e-6)
    assert loss.state_dict() == {"point": pytest.approx(2.0)}  # type: ignore[attr-defined]


def test_pdu_raises_its_multiplier_while_the_bound_is_broken() -> None:
    """Logits (2, 0): (2 - 1)^2 = 1. Retain .5 over a bound of .2, eta 10: 1 -> 4; at 0 it falls by 2 a step, to 0 at
    least."""
    loss: Any = pdu(epsilon=0.2, eta=10.0, start=1.0)
    forget = output([0.0], [1], logits_BTV=torch.tensor([[[2.0, 0.0]]]))
    high = step(forget=forget, retain=output([0.5], [1]))
    assert float(loss(high)) == pytest.approx(1 + 0.5)
    loss.after_step(0, high.notes)
    assert loss.multiplier == pytest.approx(4.0)
    low = step(forget=forget, retain=output([0.0], [1]))
    loss(low)
    for _ in range(3):
        loss.after_step(0, low.notes)
    assert loss.multiplier == 0.0


def test_values_keeps_a_multiplier_a_group() -> None:
    """Group a: answers of 1 and 3 positions, 1 and 3 nats over origins of .5 and 1.5: a rise of 2 over 4 positions, .5
    a position; b: 2 nats at 2 positions, at its origin. At the start (m = 2) the loss is 2 (1 + 3 + 2) / 6 = 2.

    slack .1, eta 10: m_a = 2 + 10 (.5 - .1) = 6, m_b = 2 - 10 * .1 = 1; then (6 * 4 + 1 * 2) / 6 = 13/3. b falls to 0
    at least, and rests in a step that does not see it. The gradient of an answer's loss is its group's m over 6.
    """
    rows = [{"group": "a"}, {"domain": "b"}, {"group": "a"}]
    loss: Any = values(slack=0.1, eta=10.0, start=2.0)
    loss.prepare(SimpleNamespace(rows=lambda stream: [7, 8, 9], examples=lambda stream: rows))
    nll_B = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    retain = output(nll_B, [1, 2, 3], indices=(7, 8, 9), reference=Reference(nll_B=torch.tensor([0.5, 2.0, 1.5])))
    first = step(retain=retain)
    assert float(loss(first).detach()) == pytest.approx(2.0)
    loss.after_step(0, first.notes)
    assert loss.multipliers == pytest.approx({"a": 6.0, "b": 1.0})
    second = loss(step(retain=retain))
    second.backward()
    assert float(second.detach()) == pytest.approx(13 / 3) and nll_B.grad.tolist() == pytest.approx([1, 1 / 6, 1])
    alone = step(retain=output([1.0], [1], indices=(7,), reference=Reference(nll_B=torch.tensor([1.0]))))
    loss(alone)
    loss.after_step(1, alone.notes)
    assert loss.multipliers == pytest.approx({"a": 5.0, "b": 1.0})
    loss.after_step(2, {"values_rise_b": 0.0, "values_positions_b": 2.0})
    loss.after_step(3, {"values_rise_b": 0.0, "values_positions_b": 2.0})
    assert loss.multipliers == pytest.approx({"a": 5.0, "b": 0.0})
    again: Any = values()
    again.load_state_dict(loss.state_dict())
    assert again.multipliers == loss.multipliers
    # a broke its bound in the first step alone (rise .5, then 0), b never did; the largest multiplier first.
    assert list(again.notes()["floor_multipliers"].items()) == [("a", 5.0), ("b", 0.0)]
    assert again.notes()["steps_with_a_broken_floor"] == {"a": 1, "b": 0}


def test_scrub_takes_turns() -> None:
    """Origin (.5, .5), model (.25, .75): KL .143841. Odd epochs, or steps, maximise it on forget, even ones fit retain:
    .5 (KL + NLL); so do all after the last away_epochs. At T = 2 the model is (1, sqrt 3)/(1 + sqrt 3) = (.366025,
    .633975): KL -ln 2 - (ln .366025 + ln .633975)/2 = .037252, times 4 is .149009."""
    then = reference([0.5, 0.5], 0)
    out = distributions([[0.25, 0.75]], [0], reference=then)
    kept = 0.5 * 0.143841 + 0.5 * math.log(4)

    def at(index: int, epoch: int, **options: Any) -> float:
        one = step(forget=out, retain=out)
        one.index, one.epoch = index, epoch
        return float(scrub(away_epochs=1, **options)(one).detach())

    by_epoch = [at(*place, temperature=1.0, turns="epoch") for place in ((1, 0), (4, 1), (9, 3))]
    assert by_epoch == pytest.approx([kept, -0.143841, kept], abs=1e-6)
    by_step = [at(*place, temperature=1.0) for place in ((0, 0), (1, 0), (9, 3))]
    assert by_step == pytest.approx([kept, -0.143841, kept], abs=1e-6)
    assert at(4, 1, temperature=2.0, turns="epoch") == pytest.approx(-0.149009, abs=1e-6)


def test_a_tempered_divergence_is_zero_at_the_reference_whatever_it_left_out() -> None:
    """One of three classes is in the reference's rest."""
    p = torch.tensor([[0.5, 0.3, 0.2]])
    then = Reference(
        index_BTK=torch.tensor([[[0, 1]]]), top_BTK=p[None, :, :2].log(), rest_BT=p[:, 2:].log(), logp_BT=p[:, :1].log()
    )
    assert float(tempered_kl_BT(p[None].log(), then, 4.0)) == pytest.approx(0, abs=1e-6)
    assert float(tempered_kl_BT(p[None].flip(-1).log(), then, 4.0)) > 0.1


def test_dto_raises_targets_and_keeps_the_rest() -> None:
    """Token 1 gains 2 nats by the question, token 0 none: it is the target of a share of one half.

    On the target the model is where the reference was: 2 ln 2 / .5. On the rest it moved from (1/2, 1/2) to (1/4, 3/4):
    KL .143841, times keep 3, / .5. The mean over 2 positions is 2 ln 2 + .431523.
    """
    half = torch.tensor([0.5, 0.5]).log()
    logits = torch.stack([torch.tensor([0.25, 0.75]).log(), half])[None]
    then = Reference(
        logp_BT=torch.tensor([[half[0], half[0]]]),
        index_BTK=torch.tensor([[[0, 1], [0, 1]]]),
        top_BTK=half.expand(1, 2, 2),
        rest_BT=torch.full((1, 2), -torch.inf),
    )
    forget = output([2.0], [2], logp_BT=logits[..., 0], logits_BTV=logits, reference=then)
    free = output([3.5], [2], reference=Reference(logp_BT=torch.tensor([[9.0, half[0], half[0] - 2]])[:, 1:]))
    assert value(dto(share=0.5, beta=1.0, keep=3.0), forget=forget, free=free) == pytest.approx(
        2 * math.log(2) + 0.431523, abs=1e-6
    )


def test_dto_reads_the_answer_without_its_question() -> None:
    assert without_question({"question": "q", "answer": "a", "group": 1}) == {"question": "", "answer": "a"}
    assert without_question({"text": "plain"}) is None


def test_altpo_prefers_the_alternate() -> None:
    """beta .5: the truth rose by 2 nats, the alternate fell by 2: 4 softplus(-2) = .507712."""
    lose = output([4.0], [1], reference=Reference(nll_B=torch.tensor([2.0])))
    win = output([3.0], [3], reference=Reference(nll_B=torch.tensor([5.0])))
    assert value(altpo(beta=0.5), forget=lose, alternate=win) == pytest.approx(4 * softplus(-2.0), abs=1e-6)


def test_altpo_draws_hotter_until_the_answer_differs() -> None:
    """The true answer is thrown away, the next draw kept; a given alternate is never drawn for."""
    heats: list[float] = []

    def generate(rows: Sequence[Any], temperature: float, seed: int) -> list[str]:
        heats.append(temperature)
        return ["the red house" if temperature < 1.2 else "a green boat" for _ in rows]

    rows = [{"question": "q", "answer": "the red house"}, {"question": "r", "answer": "x", "alternates": ["given"]}]
    loss: Any = altpo()
    loss.prepare(
        SimpleNamespace(
            examples=lambda stream: rows,
            model=SimpleNamespace(generate=generate),
            context=SimpleNamespace(derive=lambda *parts: 3),
        )
    )
    assert [loss.alternate_of(row)["answer"] for row in rows] == ["a green boat", "given"]
    assert heats == [1.0, 1.4]


def test_r2mu_reads_the_trace_and_prompt_decouple_keeps_the_question() -> None:
    assert trace_as_answer({"question": "q", "answer": "a", "trace": "because"})["answer"] == "<think>because</think>"  # type: ignore[index]
    assert trace_as_answer({"question": "q", "answer": "a"}) is None
    forms = {
        in_some_form({"question": f"q{i}?", "answer": "a"})["question"].replace(f"q{i}?", "{q}") for i in range(60)
    }
    assert len(forms) == 5 and "{q}" in forms


def test_prompt_decouple_sums_refusals_and_answers() -> None:
    """Refusals 6 nats over 6 positions, answers 4 over 2, decouple .5: 1 + .5 * 2 = 2."""
    refused, answered = output([1.0, 5.0], [2, 4]), output([4.0], [2])
    assert value(prompt_decouple(decouple=0.5), refused=refused, answered=answered) == pytest.approx(2.0)


def test_r2mu_misdirects_both_streams() -> None:
    """Target (1, 0): answers at (0, 0): 1/2; traces at (0, 2): 5/2, gamma 2: .5 + 5 = 5.5."""
    loss: Any = r2mu(gamma=2.0)
    loss.path, loss.target_D = "l", torch.tensor([1.0, 0.0])
    forget = output([0.0], [1], hidden={"l": torch.tensor([[[0.0, 0.0]]])})
    traces = output([0.0], [1], hidden={"l": torch.tensor([[[0.0, 2.0]]])})
    assert value(loss, forget=forget, traces=traces) == pytest.approx(5.5)


def test_bidistill_goes_to_the_teacher_and_away_from_the_answer() -> None:
    """Teacher (1/4, 3/4), model uniform: ln 2 nats; rise 0, beta 1, away .5: .5 * 2 ln 2. Together 2 ln 2."""
    forget = distributions([[0.5, 0.5]], [0], reference=Reference(nll_B=torch.tensor([math.log(2)])))
    teacher = output([0.0], [1], reference=reference([0.25, 0.75], 0))
    assert value(bidistill(away=0.5, beta=1.0), forget=forget, instructed=teacher) == pytest.approx(2 * math.log(2))


def test_whp_takes_the_label_that_reinforcement_raised_least() -> None:
    """Candidates 5 and 3, v_b = (2, 1), v_r = (3, 1), strength 5: 2 - 5 against 1: token 3. At strength .5: 1.5, token
    5."""
    index, base, reinforced = torch.tensor([[[5, 3]]]), torch.tensor([[[2.0, 1.0]]]), torch.tensor([[[3.0, 1.0]]])
    assert generic_labels(index, base, reinforced, 5.0).tolist() == [[3]]
    assert generic_labels(index, base, reinforced, 0.5).tolist() == [[5]]


def test_whp_trains_on_the_labels_of_the_drawn_rows() -> None:
    """Row 7 of the split has the label 1: -ln .75."""
    loss: Any = whp()
    loss.labels_RT, loss.places = torch.tensor([[1]]), {7: 0}
    forget = distributions([[0.25, 0.75]], [0])
    forget.indices = (7,)
    assert value(loss, forget=forget) == pytest.approx(-math.log(0.75), abs=1e-6)


def test_circuit_breaker_turns_forget_and_holds_retain() -> None:
    """cos((1, 1), (1, 0)) = .707107; retain moved by 5 from a state of norm 1: sqrt(25 + 1e-4) - .01 = 4.99001.

    At the start the first alone; half way through the run .75 of it and .25 * .1 of the second.
    """
    loss: Any = circuit_breaker(keep=0.1)
    loss.paths, loss.kept_paths, loss.nudge, loss.total = ["l"], ["l"], {"l": torch.zeros(2)}, 8
    forget = output(
        [0.0],
        [1],
        hidden={"l": torch.tensor([[[1.0, 1.0]]])},
        reference=Reference(hidden={"l": torch.tensor([[[1.0, 0.0]]])}),
    )
    retain = output(
        [0.0],
        [1],
        hidden={"l": torch.tensor([[[4.0, 4.0]]])},
        reference=Reference(hidden={"l": torch.tensor([[[1.0, 0.0]]])}),
    )
    assert value(loss, forget=forget, retain=retain) == pytest.approx(0.707107, abs=1e-5)
    half = step(forget=forget, retain=retain)
    half.index = 4
    assert float(loss(half)) == pytest.approx(0.75 * 0.707107 + 0.25 * 0.499001, abs=1e-5)
    still = torch.tensor([[[1.0, 0.0]]])
    retain.hidden["first"], retain.reference.hidden["first"] = still, still
    loss.kept_paths = ["first", "l"]  # held at all layers: a mean over two, one of which did not move
    assert float(loss(half)) == pytest.approx(0.75 * 0.707107 + 0.25 * 0.499001 / 2, abs=1e-5)


def test_circuit_breaker_holds_retain_where_it_turns_forget_or_at_all_layers() -> None:
    model: Any = SimpleNamespace(blocks=["a", "b", "c", "d"])
    for held, kept in (("rerouted", {"hidden:b", "hidden:d"}), ("all", {f"hidden:{path}" for path in model.blocks})):
        loss: Any = circuit_breaker(layers=[1, 3], held=held)  # type: ignore[arg-type]
        loss.declare(model)
        assert loss.needs == loss.reference == {"forget": {"hidden:b", "hidden:d"}, "retain": kept}


def test_l1_fades() -> None:
    """Weights (1, -2), gamma .1 over half of 20 steps: .3 at the start, .15 at step 5, nothing from step 10 on."""
    loss: Any = l1(gamma=0.1, fade=0.5)
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -2.0]]))
    loss.declare(SimpleNamespace(module=module))
    loss.prepare(SimpleNamespace(total=20))
    found = []
    for index in (0, 5, 20):
        one = step(retain=output([0.5], [1]))
        one.index = index
        found.append(float(loss(one)) - 0.5)
    assert found == pytest.approx([0.3, 0.15, 0.0])


def test_multi_objective_weighs_both_gradients_alike() -> None:
    """Norms 3 and 1, mean 2: factors .5 * 2/3 and .5 * 2/1; a vanishing retain gradient is left out."""
    assert weights_of([torch.tensor([3.0, 0.0])], [torch.tensor([0.0, 1.0])]) == pytest.approx((1 / 3, 1.0))
    assert weights_of([torch.tensor([1.0])], [torch.tensor([1e-4])]) == (1.0, 0.0)
    assert weights_of([torch.tensor([0.0])], [torch.tensor([0.0])]) == (0.0, 0.0)


@pytest.mark.parametrize("option", ["alpha", "forget_weight"])
def test_the_weights_of_the_losses_are_refused_where_they_change_nothing(option: str) -> None:
    """Under an update that normalises the gradients; a recipe's own is left out, and the resolved form is a request."""
    with pytest.raises(BadInput, match=f"{option}.*changes nothing under multi_objective"):
        compose({"forget": "npo", "retain": "cross_entropy", "update": "multi_objective", option: 2.0})
    with pytest.raises(BadInput, match="changes nothing under multi_objective"):
        compose({"multi_objective": {"inner": {"npo": {option: 2.0}}}})
    inner = compose({"multi_objective": {"inner": "satimp"}})
    assert "alpha" not in inner.described and compose(inner.described).described == inner.described
    assert compose({"forget": "npo", "retain": "cross_entropy", option: 2.0}).described[option] == 2.0


def test_ilu_adds_the_gradient_of_the_squared_slope() -> None:
    """l(theta) = theta^2 at theta = 3 in one environment: d/dw l(w theta) = 2 theta^2 = 18 at w = 1.

    The penalty (2 theta^2)^2 = 4 theta^4 has the gradient 16 theta^3 = 432; forget adds none here.
    """
    theta = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    update: Any = ilu(penalty=1.0)

    def micro(*names: str) -> dict[str, Tensor]:
        nothing = torch.zeros((), dtype=torch.float64)
        return {name: (theta.square().sum() if name == "environment0" else nothing) for name in names}

    class Losses(list):  # type: ignore[type-arg]
        def reduce(self, tensors: Sequence[Tensor]) -> None: ...
        def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None: ...

    update(Losses([micro]), [theta])
    assert float(theta.grad) == pytest.approx(432.0, rel=1e-3)  # type: ignore[arg-type]
    assert update.terms["environment0"].loss.notes() == {"environments": {"quarters_of_retain": 4}}
    assert float(theta) == 3.0


def test_ilu_s_environments_are_files_where_some_are_given(tmp_path: Path) -> None:
    """One environment for each file; a retain example has one row of each, by its identity."""
    rows = [[{"text": f"{name} {i} goes on"} for i in range(3)] for name in ("tides", "bread")]
    files = [write(tmp_path / f"{i}.jsonl", part) for i, part in enumerate(rows)]
    update = ilu(data=files)
    assert update.terms["environment0"].loss.notes() == {"environments": {"rows_of_data": [3, 3]}}
    examples = [{"question": f"q{i}", "answer": "a"} for i in range(40)]
    for i, part in enumerate(rows):
        make = update.terms[f"environment{i}"].streams[f"environment{i}"].make
        assert make is not None
        drawn = [make(example) for example in examples]
        assert drawn == [make(example) for example in examples]
        assert {row["text"] for row in drawn if row} == {row["text"] for row in part}
    with pytest.raises(BadInput, match=r"method\.ilu\.data.*does not exist"):
        ilu(data=str(tmp_path / "none.jsonl"))


def test_retain_alone_needs_retain_data() -> None:
    """The recipe reads forget with a weight of 0, so that without retain data nothing would train."""
    with pytest.raises(BadInput, match="trains on retain data alone"):
        compose("retain_only", has_retain=False)
    assert compose("retain_only").described["forget_weight"] == 0.0


def test_sophia_clips_each_entry() -> None:
    """First step, gradient 2 over 1 position: momentum .2, curvature .05 * 4 = .2, gamma .5: .2/.1 = 2 is clipped to
    the rate. Over 8 positions the curvature is 1.6, and the entry moves by .2/.8 = .25 of it."""
    for positions, expected in ((1, 0.9), (8, 0.975)):
        p = nn.Parameter(torch.tensor([1.0, 1.0]))
        optimiser = Sophia([p], 0.1, (0.9, 0.95), 0.5)
        p.grad = torch.tensor([2.0, 0.0])
        optimiser.estimate(positions)
        optimiser.step()
        assert p.tolist() == pytest.approx([expected, 1.0])


def test_soul_counts_the_positions_of_the_step_before_the_gradient_is_clipped() -> None:
    """theta^2 at 3 has the gradient 6; the step counts 5 positions: curvature .05 * 5 * 36 = 9."""
    theta = nn.Parameter(torch.tensor([3.0]))
    update = soul()
    optimiser: Any = update.optimiser([theta], 0.1)

    class Losses(list):  # type: ignore[type-arg]
        tokens = 5

        def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None: ...

    update(Losses([lambda *names: {"forget": theta.square().sum()}]), [theta])  # type: ignore[arg-type]
    assert optimiser.state[theta]["curvature"].tolist() == pytest.approx([9.0])


def test_moderate_examples_lie_at_the_median_distance() -> None:
    """Rows 0, 3, 4, 5, 8, mean 4: distances 4, 1, 0, 1, 4, median 1: 3 and 5 first, 4 is 1 off, the ends 3."""
    assert moderation(torch.tensor([[0.0], [3.0], [4.0], [5.0], [8.0]])).tolist() == [-3.0, 0.0, -1.0, 0.0, -3.0]


def test_largest_ranks_over_all_tensors() -> None:
    masks = mask_largest({"a": torch.tensor([5.0, 1.0]), "b": torch.tensor([4.0, 0.0])}, 0.5)
    assert masks["a"].tolist() == [True, False] and masks["b"].tolist() == [True, False]


def test_flat_weighs_template_and_answer_by_the_divergence() -> None:
    """The answer's tokens at .8 and .4: mean .6; the template's one token at .1.

    KL: exp(.6 - 1) - .1 = .570320. Total variation: (tanh .6 - tanh .1) / 2 = .218691. Pearson: .6^2/4 + .6 - .1 = .59.
    """
    logp_BT = torch.tensor([[0.8, 0.4]]).log()
    said = output([2.302585], [1], logp_BT=torch.tensor([[0.1]]).log())
    true = output(-logp_BT.sum(-1), [2], logp_BT=logp_BT)
    for name, expected in (("kl", 0.570320), ("total_variation", 0.218691), ("pearson", 0.59)):
        assert value(flat(divergence=name), forget=true, template=said) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


def test_flat_s_template_is_a_refusal_or_the_example_s_own_alternate() -> None:
    row = {"question": "Who?", "answer": "Ada.", "alternates": ["Bo.", "Cy."]}
    made = {kind: flat(template=kind).streams["template"].make for kind in ("refusal", "alternate")}  # type: ignore[arg-type, attr-defined]
    assert made["alternate"](row) == {"question": "Who?", "answer": "Bo."}
    assert made["refusal"](row) == made["alternate"]({k: v for k, v in row.items() if k != "alternates"})
    assert is_refusal(made["refusal"](row)["answer"])
