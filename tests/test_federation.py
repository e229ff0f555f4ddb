"""A federation trains, resumes, loses clients, and erases one by a request: on a few digits, in process."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from expunge.cli.app import run as command
from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Silent
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.clients import Placing, clients_of
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.data.worlds import splits
from expunge.methods._history import read_history
from expunge.methods._rounds import Local, Rounds, local_budget, participants, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.compose import compose
from expunge.methods.federated import erase_client
from expunge.models.build import fresh
from expunge.models.history import HISTORY
from expunge.models.manifest import MANIFEST, read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from expunge.training import checkpoint
from expunge.training.stopping import figures
from expunge.training.updates import ClientUpdate, State, distance, mean_by_examples, size_of
from expunge.workflows.run import run

MODEL = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 64, "classes": 10, "hidden": 16}}
CLIENTS = 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))


def rows(count: int = 160) -> list[dict[str, Any]]:
    """Digits at four clients, the last of them with a few rows."""
    found = splits("digits", 0)["train"][:count]
    return [
        {"image": row["image"].tolist(), "label": row["label"], "client": min(i % 5, 3)} for i, row in enumerate(found)
    ]


def config(folder: Path, **options: Any) -> dict[str, Any]:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    given = {"rounds": 4, **options}
    return {
        "model": MODEL,
        "data": str(data),
        "batch_size": 16,
        "learning_rate": 0.01,
        "trainer": {"federation": given},
        "out": str(folder / "base"),
    }


def weights(folder: Path | str) -> State:
    return state_of(open_model(str(folder)))


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rounds(folder: Path, strategy: Any = "fedavg", share: float = 1.0, **given: Any) -> Rounds:
    model = fresh(MODEL, [], 0)
    budget = local_budget(Budget(batch_size=16, learning_rate=0.01), Local(epochs=1))
    clients = given.pop("clients", None) or clients_of(given.pop("data", rows()), Placing())
    context = Context(budget, folder, 0, "train")
    return Rounds(model, clients, strategy_of(strategy, "s"), context, budget, share, **given)


# -- training -------------------------------------------------------------------------------------


def test_the_manifest_says_who_took_part_and_what_it_cost(tmp_path: Path) -> None:
    base = train(config(tmp_path, clients={"fraction": 0.5}))
    told = read_manifest(base)["federation"]
    size = sum(value.numel() * 4 for value in weights(base).values())
    assert told["rounds"] == 4 and [len(names) for names in told["participants"]] == [2] * 4
    assert len({tuple(names) for names in told["participants"]}) > 1, "each round draws anew"
    assert told["bytes_down"] == told["bytes_up"] == 4 * 2 * size
    assert told["examples"] == {"0": 32, "1": 32, "2": 32, "3": 64}


def test_one_client_s_rounds_are_those_of_a_federation_without_the_others(tmp_path: Path) -> None:
    """What a client sends in a round follows from the global model, its own rows, the seed and its name alone."""
    whole, alone = rounds(tmp_path / "a"), rounds(tmp_path / "b", data=[r for r in rows() if r["client"] != 1])
    start = state_of(whole.model)
    for name in ("0", "2", "3"):
        assert equal(whole.train_client(2, name, start).weights, alone.train_client(2, name, start).weights)
    assert not equal(whole.train_client(2, "0", start).weights, whole.train_client(3, "0", start).weights)


def test_gold_is_the_federation_without_the_client(tmp_path: Path) -> None:
    base = train(config(tmp_path))
    forget = [row for row in rows() if row["client"] == 1]
    found = gold(read_manifest(base), forget, open_model(str(base)))
    assert [set(names) for names in read_manifest(found)["federation"]["participants"]] == [{"0", "2", "3"}] * 4
    data = [row for row in rows() if row["client"] != 1]
    again = rounds(tmp_path / "work", data=data)
    assert equal(weights(found), again.run(state_of(again.model), 4))


class _Killed(Silent):
    """Ends the training as its n-th round is reported."""

    def __init__(self, after: int) -> None:
        self.after = after

    def advance(self, name: str, done: int, note: str = "") -> None:
        if done == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("strategy", ["fedopt", pytest.param("legato", marks=pytest.mark.slow)])
def test_a_training_that_is_killed_after_any_round_ends_with_the_same_bits(strategy: str, tmp_path: Path) -> None:
    """Killed after the second of four rounds, and in the middle of the third: the strategy's memory comes back too."""
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = train(config(tmp_path / "whole", strategy=strategy))
    given = config(tmp_path / "broken", strategy=strategy)
    with pytest.raises(KeyboardInterrupt):
        train(given, reporter=_Killed(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rounds, "train_client", _interrupted(Rounds.train_client))
        with pytest.raises(KeyboardInterrupt):
            train(given, resume=True)
    base = train(given, resume=True)
    assert equal(weights(base), weights(whole))
    assert (base / HISTORY).read_bytes() == (whole / HISTORY).read_bytes()
    ignored = ("seconds", "machine", "data")
    told = [{k: v for k, v in read_manifest(one).items() if k not in ignored} for one in (base, whole)]
    assert told[0] == told[1]


def _interrupted(train_client: Any) -> Any:
    def interrupted(self: Rounds, number: int, name: str, start: State) -> ClientUpdate:
        assert number > 2, "the rounds before are stored"
        if name == "2":
            raise KeyboardInterrupt
        found: ClientUpdate = train_client(self, number, name, start)
        return found

    return interrupted


def test_clients_that_fail_are_named_and_the_round_goes_on(tmp_path: Path) -> None:
    """Of four clients one answers with NaN and one not at all: the next model is the mean of the other two."""
    here = rounds(tmp_path)

    def exchange(number: int, names: Sequence[str], start: State) -> list[ClientUpdate]:
        sent = here.train_here(number, [name for name in names if name != "3"], start)
        broken = {name: torch.full_like(value, math.nan) for name, value in sent[1].weights.items()}
        return [sent[0], ClientUpdate("1", broken, 5), sent[2]]

    start = state_of(here.model)
    here.exchange = exchange
    found, _ = here.round(1, start)
    told = here.ledger.account()
    assert told["participants"] == [["0", "2"]]
    assert list(told["left_out"]["1"]) == ["1", "3"]
    assert told["left_out"]["1"]["3"] == "did not answer" and "not finite" in told["left_out"]["1"]["1"]
    alone = rounds(tmp_path / "again")
    expected = mean_by_examples(start, [alone.train_client(1, name, start) for name in ("0", "2")])
    assert equal(found, expected)


def without_two(run: Rounds, lost_in: int, reached: list[int]) -> None:
    """From this round on client 2 raises, and client 5 does not answer. reached: the rounds that reach the clients."""

    def exchange(number: int, names: Sequence[str], start: State) -> list[ClientUpdate]:
        reached.append(number)
        sent = []
        for name in names:
            try:
                if number >= lost_in and name == "2":
                    raise RuntimeError("out of power")
                sent += [] if number >= lost_in and name == "5" else [run.train_client(number, name, start)]
            except RuntimeError:  # as a network reports it: no answer of this client
                continue
        return sent

    run.exchange = exchange


@pytest.mark.parametrize("lost_in", [2, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 3))])
def test_two_of_eight_clients_may_die_in_any_round(lost_in: int, tmp_path: Path) -> None:
    """They are named and left out from then on, the others' rounds go on, and end with the bits of the same run again,
    of one that is resumed after each round, and of a federation that asks the six alone from that round on."""
    eight = clients_of(rows(96), Placing.of({"partition": "iid", "count": 8}, "c"))
    six = {name: own for name, own in eight.items() if name not in ("2", "5")}
    ends, whole = [], list(range(1, 4))
    for folder in ("one", "again"):
        run = rounds(tmp_path / folder, clients=eight)
        without_two(run, lost_in, reached := [])
        ends.append(run.run(state_of(run.model), 3))
        assert reached == whole
    told = run.ledger.account()
    assert told["participants"] == [list(eight if number < lost_in else six) for number in whole]
    silent = {"2": "did not answer", "5": "did not answer"}
    assert told["left_out"] == {str(number): silent for number in whole if number >= lost_in}

    for last in whole:
        run = rounds(tmp_path / "resumed", clients=eight)
        without_two(run, lost_in, reached := [])
        end = run.run(state_of(run.model), last)
        assert reached == [last], "the rounds before are stored"
    alone, weights = rounds(tmp_path / "alone", clients=eight), state_of(rounds(tmp_path / "start").model)
    for number in whole:
        names = eight if number < lost_in else six
        weights = mean_by_examples(weights, [alone.train_client(number, name, weights) for name in names])
    assert all(equal(one, ends[0]) for one in (ends[1], end, weights)) and run.ledger.account() == told


def test_fewer_clients_change_no_other_s_place_in_the_draw(tmp_path: Path) -> None:
    context = Context(Budget(), tmp_path, 5, "train")
    names = [str(i) for i in range(8)]
    for number in range(1, 6):
        drawn = participants(names, 0.5, context, number)
        left = participants([name for name in names if name != drawn[0]], 0.5, context, number)
        assert set(drawn[1:]) <= set(left) and len(left) == 4


@pytest.mark.parametrize("strategy", [{"fedprox": {"mu": 0.1}}, "krum", "legato", {"fedopt": {"rate": 0.03}}])
def test_a_federation_learns(strategy: Any, tmp_path: Path) -> None:
    """Three rounds of a small perceptron on 160 digits: more than a quarter right, by chance a tenth."""
    here = rounds(tmp_path, strategy)
    here.budget = local_budget(Budget(batch_size=16, learning_rate=0.03), Local(epochs=2))
    checkpoint.restore(here.model.module, here.run(state_of(here.model), 3), "")
    assert figures(here.model, splits("digits", 0)["test"][:200])["accuracy"] > 0.25


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"strategy": "fedavgg"}, "unknown strategy 'fedavgg'"),
        ({"clients": "hospital"}, "has no hospital, which names its client"),
        ({"rounds": 0}, r"trainer\.federation\.rounds"),
        ({"clients": {"partition": "iid", "count": 1}}, r"trainer\.federation\.clients\.count"),
        ({"strategy": {"tifl": {"tiers": 5}}}, r"federation\.strategy\.tifl\.tiers: 5 is more than the 4 clients"),
        ({"strategy": {"tifl": {"tiers": 2, "pace": {"9": 2.0}}}}, r"strategy\.tifl\.pace: unknown client '9'"),
        ({"strategy": {"reweigh": {"by": "sex"}}}, "'sex' is missing in 32 of the 32 rows of client 0"),
    ],
)
def test_faults_are_found_before_anything_is_written(options: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=why):
        train(config(tmp_path, **options))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


# -- erasing --------------------------------------------------------------------------------------


def request(folder: Path, method: Any, **fields: Any) -> dict[str, Any]:
    held = splits("digits", 0)
    holdout = [{"image": row["image"].tolist(), "label": row["label"]} for row in held["holdout"][:40]]
    return {
        "model": str(folder / "base"),
        "data": str(folder / "rows.jsonl"),
        "forget": {"client": 1},
        "holdout": holdout,
        "method": method,
        "budget": {"stop": "none"},
        "out": str(folder / "run"),
        **fields,
    }


def test_a_request_erases_a_client_and_its_evidence_says_what_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(tmp_path))
    done = run(Request.parse(request(tmp_path, {"erase_client": {"rounds": 2, "epochs": 1}})))
    told = json.loads((tmp_path / "run" / "evidence.json").read_text())
    spent = told["method_notes"]["federation"]
    size = sum(value.numel() * 4 for value in weights(tmp_path / "base").values())
    assert spent["rounds"] == 2 and spent["training_rounds"] == 4
    assert spent["bytes_down"] == 2 * 3 * size and spent["bytes_up"] == 2 * 3 * size + size
    assert spent["training_bytes_up"] == 4 * 4 * size
    assert told["splits"]["forget"] == 32 and done
    assert any(score["subject"] == "gold" for score in told["scores"])
    assert not (tmp_path / "run" / "model" / HISTORY).exists(), "the erased client's updates go with the old model"
    assert not equal(weights(tmp_path / "run" / "model"), weights(tmp_path / "base"))
    record = tmp_path / "base" / HISTORY
    assert command(["purge", str(tmp_path / "run")]) == 0
    told = "".join(capsys.readouterr().out.split())  # lines are broken at the terminal's width
    assert f"kept{record},whichholdswhateachclientsent" in told
    assert record.is_file(), "the base is not the run's"
    board = tmp_path / "board"
    for seed in (0, 1):
        shutil.copytree(tmp_path / "run", board / "erase_client" / f"seed-{seed}")
    (board / "leaderboard.json").write_text(json.dumps({"rows": []}))
    assert command(["purge", str(board)]) == 0
    told = "".join(capsys.readouterr().out.split())
    assert told.count(f"kept{record},") == 1 and record.is_file(), "once, though two runs of the bench changed it"


@pytest.mark.parametrize("way", ["dirichlet", pytest.param("label", marks=pytest.mark.slow)])
def test_a_client_that_a_partition_dealt_rows_to_is_erased_by_its_number(way: str, tmp_path: Path) -> None:
    """No row names its client: the method and gold leave out the rows that were dealt to client 2, whatever the seeds
    of training and request are, and a row's own field `client` says something else."""
    dealt = {"partition": way, "count": 4, "seed": 7}
    given = config(tmp_path, clients=dealt, rounds=2)
    given["seed"] = 5
    base = train(given)
    whole = clients_of(load(str(tmp_path / "rows.jsonl"), "data"), Placing.of(dealt, "c"))
    home = {identity(row): name for name, own in whole.items() for row in own}
    asked = Request.parse(request(tmp_path, {"go_on": {"rounds": 1}}, forget={"client": 2}, seed=9))
    planned = plan(asked)
    assert {home[identity(row)] for row in planned.splits["forget"]} == {"2"}
    kept = [row for name, part in planned.splits.items() if name.startswith("retain") for row in part]
    assert "2" not in {home[identity(row)] for row in kept}
    assert len(planned.splits["forget"]) == len(whole["2"]) and planned.splits["forget"]
    found = gold(read_manifest(base), planned.splits["forget"], open_model(str(base)))
    others = [name for name in read_manifest(base)["federation"]["examples"] if name != "2"]
    assert read_manifest(found)["federation"]["participants"] == [others] * 2
    assert read_manifest(found)["federation"]["examples"] == {name: len(whole[name]) for name in others}


def test_the_client_of_another_field_is_erased_by_its_name(tmp_path: Path) -> None:
    given = config(tmp_path, clients="hospital", rounds=1)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({**row, "hospital": f"h{row['client']}"}) + "\n" for row in rows()))
    train(given)
    planned = plan(Request.parse(request(tmp_path, "go_on", forget={"client": "h1"})))
    assert len(planned.splits["forget"]) == 32 and {row["client"] for row in planned.splits["forget"]} == {1}
    with pytest.raises(BadInput, match="client takes: h0, h1, h2, h3"):
        plan(Request.parse(request(tmp_path, "go_on", forget={"client": 1})))


@pytest.mark.parametrize(
    ("method", "pooled"), [("auto", True), ("npo", True), ("erase_client", False), ("retrain", False)]
)
def test_a_method_that_reads_all_clients_rows_in_one_place_says_so(method: str, pooled: bool, tmp_path: Path) -> None:
    train(config(tmp_path))
    auto = {"auto": {"rungs": ["npo"], "exact": False}}  # else a retraining costs no more
    made = plan(Request.parse(request(tmp_path, auto if method == "auto" else method)))
    told = [note for note in made.notes if "reads the rows of all clients in one place" in note]
    assert len(told) == pooled and all("erase_client, federaser and distil_others" in note for note in told)


def departed(folder: Path, method: Any, forget: Sequence[Any] = (1,)) -> tuple[State, dict[str, Any]]:
    base = open_model(str(folder / "base"))
    composed = compose(method)
    given = {
        "forget": [r for r in rows() if r["client"] in forget],
        "retain": [r for r in rows() if r["client"] not in forget],
    }
    manifest = read_manifest(folder / "base")
    composed.method.fits(base, given, manifest)
    context = Context(Budget(stop="none"), folder / "work", 3, "apply", manifest=manifest)
    return state_of(composed.method(base, given, context)), context.notes


def test_without_its_last_update_is_the_mean_of_the_others(tmp_path: Path) -> None:
    """The mean of the three other clients' models of the last round, to rounding."""
    base = train(config(tmp_path))
    found, _ = departed(tmp_path, {"go_on": {"rounds": 0, "drop_last": True}})
    last = read_history(base, found)[-1]
    expected = mean_by_examples(last.before, [one for one in last.updates if one.client != "1"])
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)
    assert not equal(found, weights(base))


def test_a_hostile_leaving_client_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model lies outside the ball: the result is that of rounds from the mean of the others, and says so."""
    train(config(tmp_path))

    def wreck(departure: Any, start: State, radius: float, settings: Any) -> State:
        departure.context.notes["ascent"] = {"steps": 1, "rows": 1, "stopped": 0.0, "moved": math.inf}
        return {name: value + 100 for name, value in start.items()}

    monkeypatch.setattr(erase_client, "_ascend", wreck)
    found, notes = departed(tmp_path, {"erase_client": {"rounds": 0}})
    assert "outside the radius" in notes["remarks"][0]
    monkeypatch.undo()
    (tmp_path / "work").rename(tmp_path / "refused")
    expected, _ = departed(tmp_path, {"go_on": {"rounds": 0, "drop_last": True}})
    assert equal(found, expected)


def test_the_replay_never_reads_the_leaving_client_s_updates(tmp_path: Path) -> None:
    """Whatever that client sent in any round, the replay ends with the same bits."""
    base = train(config(tmp_path, history="all"))
    found, notes = departed(tmp_path, "federaser")
    assert notes["federation"]["rounds"] == 1, "the first is taken as it was; of four every second is replayed"
    with safe_open(base / HISTORY, "pt") as file:
        told, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    place = [name for name, _ in json.loads(told["rounds"])[0]["clients"]].index("1")
    noisy = {k: torch.randn_like(v) if k.split(".")[1] == str(place) else v for k, v in tensors.items()}
    save_file(noisy, base / HISTORY, told)
    (tmp_path / "work").rename(tmp_path / "first")
    assert equal(departed(tmp_path, "federaser")[0], found)


def test_the_others_learn_the_old_model_s_answers_and_no_label(tmp_path: Path) -> None:
    """Whatever labels their rows carry, the weights are the same, to rounding, where the answers alone count; each gets
    the old model once. Where labels count, they change what is learned."""
    train(config(tmp_path, history="all"))
    manifest = read_manifest(tmp_path / "base")
    forget = [row for row in rows() if row["client"] == 1]
    ends: dict[Any, State] = {}
    for share, wrong in ((1.0, 0), (1.0, 1), (0.5, 0), (0.5, 1)):
        kept = [{**row, "label": (row["label"] + wrong) % 10} for row in rows() if row["client"] != 1]
        method = compose({"distil_others": {"rounds": 1, "share": share}}).method
        context = Context(Budget(stop="none"), tmp_path / f"{share} {wrong}", 3, "apply", manifest=manifest)
        model = method(open_model(str(tmp_path / "base")), {"forget": forget, "retain": kept}, context)
        ends[share, wrong] = state_of(model)
    assert distance(ends[1.0, 0], ends[1.0, 1]) < 1e-3 < 0.1 < distance(ends[0.5, 0], ends[0.5, 1])
    size = size_of(ends[1.0, 0])
    assert context.notes["federation"]["bytes_down"] == 2 * 3 * size and context.notes["federation"]["rounds"] == 1


@pytest.mark.parametrize(
    ("options", "method", "why"),
    [
        ({"history": "none"}, "go_on", "federation's server keeps"),
        ({}, "federaser", "history: all"),
        ({}, "distil_others", "history: all"),
        ({"strategy": "median"}, "erase_client", "the global model is no mean"),
    ],
)
def test_a_plan_refuses_what_the_server_did_not_keep(
    options: dict[str, Any], method: str, why: str, tmp_path: Path
) -> None:
    train(config(tmp_path, **options))
    with pytest.raises(BadInput, match=why):
        plan(Request.parse(request(tmp_path, method)))


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("trainer", "federation"), {}, ""),
        (("trainer", "federation", "rounds"), "x", r"trainer\.federation\.rounds: 'x'"),
        (("federation", "facts"), "abc", r"federation\.facts is 'abc'"),
        (("federation", "facts"), [{"round": 1}], r"federation\.facts"),
        (("federation", "local"), {"epochs": 0}, r"federation\.local\.epochs: 0"),
    ],
)
def test_a_manifest_that_somebody_wrote_is_read_with_care(place: Any, value: Any, why: str, tmp_path: Path) -> None:
    """What it leaves out has its default; else the plan says in a sentence what is wrong."""
    base = train(config(tmp_path, rounds=1))
    manifest = json.loads((base / MANIFEST).read_text())
    inner = manifest
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (base / MANIFEST).write_text(json.dumps(manifest))
    if not why:
        assert plan(Request.parse(request(tmp_path, "go_on"))).splits["forget"]
        return
    with pytest.raises(BadInput, match=why):
        plan(Request.parse(request(tmp_path, "go_on")))


def test_rows_that_do_not_go_with_the_training_are_noticed(tmp_path: Path) -> None:
    """Half of a client's rows are there: the plan says so. A client that never trained cannot leave."""
    train(config(tmp_path, rounds=1))
    data, kept = tmp_path / "rows.jsonl", rows()
    mine = [row for row in kept if row["client"] == 1][::2]
    data.write_text("".join(json.dumps(row) + "\n" for row in kept if row["client"] != 1 or row in mine))
    notes = plan(Request.parse(request(tmp_path, "go_on"))).notes
    assert any("Client 1 had 32 rows in the training, and 16 are to be forgotten" in note for note in notes)
    data.write_text("".join(json.dumps({**row, "client": row["client"] + 4}) + "\n" for row in kept))
    with pytest.raises(BadInput, match="client 5' had no part in the training"):
        plan(Request.parse(request(tmp_path, "go_on", forget={"client": 5})))


def test_a_damaged_history_is_refused(tmp_path: Path) -> None:
    base = train(config(tmp_path))
    (base / HISTORY).write_bytes((base / HISTORY).read_bytes()[:1000])
    with pytest.raises(BadInput, match="cannot be read"):
        departed(tmp_path, "erase_client")
