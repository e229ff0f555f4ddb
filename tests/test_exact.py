"""Exact deletion: equal to a training without the examples, bit for bit; broken off and resumed; refused where it
cannot be."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from expunge.core.budget import Budget
from expunge.core.contracts import Silent, want_of
from expunge.core.errors import BadInput
from expunge.core.files import digest_folder, read_json
from expunge.core.train_config import TrainConfig
from expunge.data.examples import identity
from expunge.data.worlds.digits import digits
from expunge.methods.exact._sliced import parts, stage_budget
from expunge.models.ensemble import Ensemble, mean_logp
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.pipeline.gold import gold_folder
from expunge.pipeline.plan import plan
from expunge.pipeline.train import parse_training, train
from expunge.workflows.run import Run, run
from worlds import pairs, write

SISA = {"sisa": {"shards": 3, "slices": 3}}
LM = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 320}
DIGITS = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}


class Stops(Silent):
    """Ends at the n-th step that any stage reports."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.steps = at, 0

    def advance(self, name: str, done: int, note: str = "") -> None:
        if not name.startswith("reading"):
            self.steps += 1
            if self.steps == self.at:
                raise KeyboardInterrupt


def rows_of(family: str) -> list[dict[str, Any]]:
    if family == "lm":
        return pairs(0, 10)
    return [{"image": row["image"].tolist(), "label": row["label"]} for row in digits()["train"][:90]]


def config(family: str, folder: Path, **more: Any) -> TrainConfig:
    folder.mkdir(parents=True, exist_ok=True)
    data = write(folder / "data.jsonl", rows_of(family))
    given = {
        "model": LM if family == "lm" else DIGITS,
        "data": data,
        "exact": SISA,
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "out": str(folder / "base"),
        **more,
    }
    return TrainConfig.parse(given)


@pytest.fixture(scope="module", params=["classifier", "lm"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A family, and a folder with data.jsonl and an ensemble of 3 x 3 in base/."""
    folder = tmp_path_factory.mktemp(request.param)
    train(config(request.param, folder))
    return request.param, folder


def one_shards_rows(rows: list[dict[str, Any]], shard: int = 1) -> list[dict[str, Any]]:
    """The rows of the last two slices of a shard: its first checkpoint may stay."""
    _, *late = parts(rows, 3, 3, 0)[shard]
    return [row for part in late for row in part]


def deleted(folder: Path, rows: list[dict[str, Any]], out: str, model: str = "base", **more: Any) -> Run:
    forget = write(folder / f"{out.replace('/', '-')}-forget.jsonl", rows)
    return run(
        {
            "model": str(folder / model),
            "forget": forget,
            "retain": str(folder / "data.jsonl"),
            "method": "sisa",
            "gold": "one",
            "out": str(folder / out),
            **more,
        }
    )


def without(folder: Path, rows: list[dict[str, Any]]) -> str:
    """data.jsonl without the rows, as retain data must be."""
    gone = {identity(row) for row in rows}
    return write(
        folder / "left.jsonl",
        [
            json.loads(line)
            for line in (folder / "data.jsonl").read_text().splitlines()
            if identity(json.loads(line)) not in gone
        ],
    )


@pytest.mark.claims("sisa")
def test_a_deletion_is_a_training_without_the_examples(world: tuple[str, Path]) -> None:
    """Every tensor of every shard and checkpoint; and what had no part in it is only copied."""
    family, folder = world
    forget = one_shards_rows(rows_of(family))[:2]
    done = deleted(folder, forget, "one", retain=without(folder, forget))
    gold = gold_folder(read_manifest(folder / "base"), forget)
    ours, theirs = digest_folder(folder / "one" / "model"), digest_folder(gold)
    shards = [name for name in theirs if name.endswith(".safetensors")]
    assert len(shards) == 9
    assert {name: ours[name] for name in shards} == {name: theirs[name] for name in shards}
    base = digest_folder(folder / "base")
    changed = sorted(name for name in shards if base[name] != ours[name])
    assert changed and all(name.startswith("shard-1/") for name in changed)
    assert "shard-1/slice-1.safetensors" not in changed, "the checkpoint before the first slice concerned stays"
    assert load_file(folder / "one" / "model" / "shard-1" / "model.safetensors").keys()
    cost = done.evidence["cost"]
    assert 0 < cost["steps_retrained"] < cost["steps_total"] / 3 + 3 and cost["requests_served"] == 1
    assert cost["deleted"] == 2 and any("Exact deletion of 2" in note for note in done.evidence["notes"])
    assert (
        done.scores["forget_kl_to_gold" if family == "classifier" else "forget_nll", "after"]
        == done.scores["forget_kl_to_gold" if family == "classifier" else "forget_nll", "gold"]
    )
    assert (folder / "one" / "certificate.json").is_file()


@pytest.mark.parametrize("world", ["classifier"], indirect=True)
def test_the_next_request_starts_from_what_is_left(world: tuple[str, Path]) -> None:
    """The second deletion, from the first one's model, is a training without both."""
    family, folder = world
    first, second = one_shards_rows(rows_of(family), 0)[:1], one_shards_rows(rows_of(family), 2)[:1]
    deleted(folder, first, "a", retain=without(folder, first), gold="none")
    done = deleted(folder, second, "b", model="a/model", retain=without(folder, [*first, *second]))
    gold = gold_folder(read_manifest(folder / "base"), [*first, *second])
    if not gold.exists():
        from expunge.pipeline.gold import gold as train_gold

        train_gold(read_manifest(folder / "base"), [*first, *second], open_on_cpu(str(folder / "base")))
    ours, theirs = digest_folder(folder / "b" / "model"), digest_folder(gold)
    assert {n: h for n, h in ours.items() if n.endswith(".safetensors")} == {
        n: h for n, h in theirs.items() if n.endswith(".safetensors")
    }
    assert done.evidence["cost"]["requests_served"] == 2
    left = read_manifest(folder / "b" / "model")["hashes"]
    assert len(left) == len(rows_of(family)) - 2 and not {identity(row)[:16] for row in [*first, *second]} & set(left)


def test_a_training_that_was_broken_off_ends_alike(world: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = world
    (tmp_path / "data.jsonl").write_bytes((folder / "data.jsonl").read_bytes())
    counted = Stops()
    whole = train(config(family, tmp_path, out=str(tmp_path / "whole")), reporter=counted)
    broken = config(family, tmp_path, out=str(tmp_path / "broken"))
    with pytest.raises(KeyboardInterrupt):
        train(broken, reporter=Stops(counted.steps * 2 // 3))
    assert not (tmp_path / "broken").exists()
    with pytest.raises(BadInput, match=r"another train.yaml"):
        train(broken.model_copy(update={"epochs": 5}), resume=True)
    started = tmp_path / ".broken.training" / "started.json"
    told = started.read_bytes()
    started.write_bytes(told[:9])
    with pytest.raises(BadInput, match=r"or damaged"):
        train(broken, resume=True)
    started.write_bytes(told)
    rest = Stops()
    train(broken, reporter=rest, resume=True)
    assert 0 < rest.steps < counted.steps / 2 + 8
    one, other = digest_folder(whole), digest_folder(tmp_path / "broken")
    assert {n: h for n, h in one.items() if n != "expunge.json"} == {
        n: h for n, h in other.items() if n != "expunge.json"
    }
    assert read_manifest(whole)["steps"] == read_manifest(tmp_path / "broken")["steps"]


@pytest.mark.parametrize("world", ["classifier"], indirect=True)
def test_a_deletion_that_was_broken_off_ends_alike(world: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = world
    rows = rows_of(family)
    forget = [one_shards_rows(rows, k)[0] for k in range(3)]
    request = {
        "model": str(folder / "base"),
        "forget": write(tmp_path / "f.jsonl", forget),
        "method": "sisa",
        "gold": "none",
    }
    counted = Stops()
    run({**request, "out": str(tmp_path / "whole")}, reporter=counted)
    with pytest.raises(KeyboardInterrupt):  # `run` alone, without the command line's wrapper
        from expunge.core.errors import Interrupted

        try:
            run({**request, "out": str(tmp_path / "broken")}, reporter=Stops(counted.steps * 2 // 3))
        except Interrupted as said:
            assert "--resume" in str(said)
            raise KeyboardInterrupt from None
    rest = Stops()
    run({**request, "out": str(tmp_path / "broken")}, reporter=rest, resume=True)
    assert rest.steps < counted.steps
    one, other = digest_folder(tmp_path / "whole" / "model"), digest_folder(tmp_path / "broken" / "model")
    assert {n: h for n, h in one.items() if "/" in n or n == "ensemble.json"} == {
        n: h for n, h in other.items() if "/" in n or n == "ensemble.json"
    }


# -- the ensemble ---------------------------------------------------------------------------------


def test_it_answers_with_the_mean_of_the_probabilities(world: tuple[str, Path]) -> None:
    family, folder = world
    whole = open_on_cpu(str(folder / "base"))
    assert isinstance(whole, Ensemble) and "shards" in whole.capabilities
    batch = whole.collate(rows_of(family)[:5])
    want = want_of({"nll", "logp", "logits", "topk:4", "argmax", "moments"})
    with torch.no_grad():
        out = whole.forward(batch, want)
        each = [member.forward(batch, want).logits_BTV.softmax(-1) for member in whole.members]
    mean_BTV = torch.stack(each).mean(0)
    seen = out.mask_BT
    torch.testing.assert_close(out.logits_BTV[seen].softmax(-1), mean_BTV[seen], rtol=1e-4, atol=1e-6)
    label_BT = mean_BTV.gather(-1, out.labels_BT[..., None])[..., 0].log()
    torch.testing.assert_close(out.logp_BT[seen], label_BT[seen], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.nll_B, -(label_BT * seen).sum(-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(out.argmax_BT[seen], mean_BTV.argmax(-1)[seen])
    mu_BT = (mean_BTV * mean_BTV.clamp(min=1e-30).log()).sum(-1)
    torch.testing.assert_close(out.mu_BT[seen], mu_BT[seen], rtol=1e-3, atol=1e-4)
    with pytest.raises(BadInput, match="no hidden states"):
        whole.forward(batch, want_of({"hidden:0"}))


def test_the_mean_of_two_distributions_by_hand() -> None:
    """(.9, .1) and (.5, .5) give (.7, .3), whatever the logits' own level."""
    logits = [torch.tensor([[math.log(0.9), math.log(0.1)]]), torch.tensor([[7.0, 7.0]])]
    torch.testing.assert_close(mean_logp(logits).exp(), torch.tensor([[0.7, 0.3]]))


def test_text_is_the_greedy_text_of_the_mean(tmp_path: Path) -> None:
    """Copies of one model write what the model writes; unequal prompts are padded on the left."""
    folder = tmp_path / "lm"
    train(config("lm", folder, epochs=12, exact={"sisa": {"shards": 2, "slices": 1}}))
    whole = open_on_cpu(str(folder / "base"))
    assert isinstance(whole, Ensemble)
    alone = whole.members[0]
    rows = [{**row, "question": row["question"] + " Say it." * (i % 2)} for i, row in enumerate(rows_of("lm")[:6])]
    said = alone.generate(rows, max_new_tokens=12)
    whole.members = [alone, alone]
    assert whole.generate(rows, max_new_tokens=12) == said and any(said)
    assert whole.generate(rows, max_new_tokens=12, temperature=1.0, seed=1) == whole.generate(
        rows, max_new_tokens=12, temperature=1.0, seed=1
    )


# -- shards and slices ----------------------------------------------------------------------------


def test_removing_an_example_moves_no_other() -> None:
    rows = rows_of("lm")
    before = parts(rows, 4, 3, 7)
    after = parts(list(reversed(rows[1:])), 4, 3, 7)
    assert [[[r for r in part if r != rows[0]] for part in shard] for shard in before] == after
    assert sum(len(part) for shard in before for part in shard) == len(rows)
    assert parts(rows, 4, 3, 8) != before


def test_the_stages_take_as_many_steps_as_the_epochs() -> None:
    """12 epochs on 4 slices of 80: 2/5 of 12 epochs on 80, 160, 240, 320 examples = 12 epochs on 320."""
    budget = Budget(epochs=12, batch_size=16)
    steps = [stage_budget(budget, 80 * i, 4).steps for i in (1, 2, 3, 4)]
    assert steps == [24, 48, 72, 96] and sum(steps) == 12 * 320 // 16  # type: ignore[arg-type]
    assert stage_budget(budget, 0, 4).steps == 0 and stage_budget(budget, 1, 1000).steps == 1


def test_empty_slices_and_shards_are_left_out(tmp_path: Path) -> None:
    """As many slices as examples: many are empty, and a shard without examples does not answer."""
    made = config(
        "classifier",
        tmp_path,
        exact={"sisa": {"shards": 9, "slices": 2}},
        epochs=1,
        data=write(tmp_path / "few.jsonl", rows_of("classifier")[:18]),
    )
    train(made)
    state = read_json(tmp_path / "base" / "ensemble.json")
    full = [f"shard-{k}" for k, shard in enumerate(state["shards"]) if sum(shard["examples"])]
    assert state["members"] == full and len(full) < 9


# -- what is refused ------------------------------------------------------------------------------


def faults(**changes: Any) -> str:
    with pytest.raises(BadInput) as found:
        parse_training({"model": LM, "data": "d.jsonl", "out": "o", **changes})
    return "\n".join(found.value.faults)


@pytest.mark.parametrize(
    ("exact", "sentence"),
    [
        ({"sisa": {"shards": 0}}, "exact.sisa.shards: 0 cannot be used; give a number of at least 1."),
        ({"sisa": {"shard": 4}}, "exact.sisa.shard: unknown sisa option 'shard'; did you mean 'shards'?"),
        ({"sise": {}}, "exact: unknown scheme 'sise'; did you mean 'sisa'?"),
        ("retrain", "exact: unknown scheme 'retrain'"),
        ({"sisa": 4}, "exact.sisa: 4 is not a mapping of options; write sisa: {option: value}."),
        ([], "exact: '[]' is not a scheme; write exact: {sisa: {shards: 4, slices: 4}}."),
        ({"sisa": {}, "s3t": {}}, "is not a scheme; write exact: {sisa: {shards: 4, slices: 4}}."),
        ({"sisa": {"slices": "many"}}, "exact.sisa.slices: 'many' cannot be used; give a whole number."),
    ],
)
def test_a_scheme_that_cannot_be_had(exact: Any, sentence: str) -> None:
    assert sentence in faults(exact=exact)


def test_all_faults_of_a_train_file_at_once() -> None:
    said = faults(exact={"sisa": {"shards": -1}}, epochs=0)
    assert "exact.sisa.shards" in said and "epochs" in said


def test_more_slices_than_examples_writes_nothing(tmp_path: Path) -> None:
    made = config("classifier", tmp_path, exact={"sisa": {"shards": 10, "slices": 10}})
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(BadInput, match="makes 100 slices in all, and there are 90 examples; take fewer"):
        train(made)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_methods_and_models_that_do_not_go_together(world: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = world
    rows = rows_of(family)
    request = {
        "model": str(folder / "base"),
        "forget": write(tmp_path / "f.jsonl", rows[:2]),
        "method": "npo",
        "retain": write(tmp_path / "r.jsonl", rows[2:20]),
        "out": str(tmp_path / "out"),
    }
    with pytest.raises(
        BadInput, match=r"npo' changes a single model, and this one is an ensemble of 3 .*would work: .*sisa"
    ):
        run(request)
    single = str(folder / "base" / "shard-0")
    with pytest.raises(
        BadInput, match=r"sisa' needs to be trained with `exact: sisa` in train.yaml, which this .* was not"
    ):
        run({**request, "model": single, "method": "sisa"})
    with pytest.raises(BadInput, match="holds none of the examples"):
        run(
            {
                **request,
                "method": "sisa",
                "forget": write(
                    tmp_path / "g.jsonl",
                    [
                        {**rows[0], "answer": "No.", "text": "x"}
                        if family == "lm"
                        else {**rows[0], "label": (rows[0]["label"] + 1) % 10}
                    ],
                ),
            }
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("world", ["classifier"], indirect=True)
def test_a_plan_says_what_will_be_retrained(world: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = world
    forget = one_shards_rows(rows_of(family))[:1]
    request = {
        "model": str(folder / "base"),
        "forget": write(tmp_path / "f.jsonl", forget),
        "method": "sisa",
        "gold": "none",
        "out": str(tmp_path / "out"),
    }
    from expunge.core.request import Request

    planned = plan(Request.parse(request)).steps
    done = run(request)
    assert planned == done.evidence["cost"]["steps_retrained"] > 0


@pytest.mark.parametrize("world", ["classifier"], indirect=True)
def test_an_ensemble_file_that_points_elsewhere_is_refused(world: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for text in (
        '{"scheme": "sisa", "seed": 0, "members": ["../x"]}',
        '{"scheme": "sisa", "seed": 0, "members": ["."]}',
        '{"members": []}',
        "no json",
    ):
        (tmp_path / "bad" / "ensemble.json").write_text(text)
        with pytest.raises(BadInput, match=r"ensemble.json"):
            open_on_cpu(str(tmp_path / "bad"))


@pytest.mark.parametrize("world", ["classifier"], indirect=True)
def test_the_training_s_own_context_is_kept(world: tuple[str, Path], tmp_path: Path) -> None:
    """Seed, stage and budget of the training hold, not the request's."""
    family, folder = world
    forget = one_shards_rows(rows_of(family))[:2]
    request = {
        "model": str(folder / "base"),
        "forget": write(tmp_path / "f.jsonl", forget),
        "method": "sisa",
        "gold": "none",
    }
    one = run({**request, "seed": 5, "budget": {"epochs": 1, "batch_size": 2}, "out": str(tmp_path / "one")})
    other = run({**request, "seed": 6, "out": str(tmp_path / "other")})
    a, b = digest_folder(one.out / "model"), digest_folder(other.out / "model")
    assert {n: h for n, h in a.items() if "/" in n} == {n: h for n, h in b.items() if "/" in n}
