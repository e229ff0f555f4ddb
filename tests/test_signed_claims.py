"""What clients sign of each round, and `expunge verify` on it: an edited claim, or one by another key, is seen.

Slow: `cryptography` is part of the extra `crypto`, which `make nightly` installs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from expunge.cli.app import run as main
from expunge.core.errors import BadInput
from expunge.methods._rounds import Rounds, state_of
from expunge.methods.claims import Keys, claim_of, file_of, make_keys, private_key, public_key
from expunge.pipeline.train import train
from expunge.training.updates import ClientUpdate, State, chain, digest_of
from expunge.workflows.run import run
from expunge.workflows.verify import verify
from test_federation import config, rounds
from test_verify import forged

NAMES = ("0", "1", "2", "3")


def test_a_claim_is_of_all_that_it_names() -> None:
    """Each of its five parts changes its bytes; a client's name that is a path names no file."""
    plain = ("7", 3, "a" * 64, "b" * 64, 40)
    others = (("8", 4, "c" * 64, "c" * 64, 41)[i] for i in range(5))
    changed = {claim_of(*plain[:i], other, *plain[i + 1 :]) for i, other in enumerate(others)}  # type: ignore[arg-type]
    assert len(changed | {claim_of(*plain)}) == 6
    for name in ("../7", "a/b", ""):
        with pytest.raises(BadInput, match="no file can be named after"):
            file_of(Path("keys"), name, "pem")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation of four clients that sign, and a run in which one left by its own ascent."""
    folder = tmp_path_factory.mktemp("claims")
    make_keys(folder / "keys", NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_CACHE", str(folder / "cache"))
        train(config(folder, rounds=2, local={"sign": str(folder / "keys")}))
        method = {"erase_client": {"rounds": 1, "epochs": 1}}
        given = {"model": str(folder / "base"), "data": str(folder / "rows.jsonl"), "forget": {"client": 3}}
        run({**given, "method": method, "gold": "none", "out": str(folder / "run")})
    return folder


def loaded(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def relink(rounds: dict[str, Any]) -> None:
    head = ""
    for fact in (fact for stage in rounds["stages"] for fact in stage["facts"]):
        own = {name: value for name, value in fact.items() if name != "chain"}
        head = fact["chain"] = chain(head, own)


@pytest.mark.slow
def test_every_round_holds_the_clients_claims(place: Path, capsys: Any) -> None:
    """Two rounds of four, the leaving client's own model, and a round of three; all verify, with the keys and
    without."""
    stages = loaded(place / "run" / "evidence.json")["rounds"]["stages"]
    signers = [sorted(fact["claims"]) for stage in stages for fact in stage["facts"]]
    assert signers == [list(NAMES), list(NAMES), ["3"], ["0", "1", "2"]]
    known = {name: public_key(place / "keys" / f"{name}.pub") for name in NAMES}
    assert all(
        claim["key"] == known[name]
        for stage in stages
        for fact in stage["facts"]
        for name, claim in fact["claims"].items()
    )
    assert verify(place / "base").good and verify(place / "base", parties=place / "keys").good
    found = verify(place / "run", parties=place / "keys")
    assert found.good and not any("--parties" in remark for remark in found.remarks)
    assert main(["verify", str(place / "run")]) == 0
    assert "--parties compares these with yours" in " ".join(capsys.readouterr().out.split())
    assert "signed what they sent" in (place / "run" / "report.html").read_text()


def edit_examples(rounds: dict[str, Any]) -> None:
    rounds["stages"][0]["facts"][1]["claims"]["2"]["examples"] += 1


def edit_update(rounds: dict[str, Any]) -> None:
    rounds["stages"][1]["facts"][1]["updates"]["0"] = "0" * 64


def drop_claim(rounds: dict[str, Any]) -> None:
    del rounds["stages"][0]["facts"][0]["claims"]["1"]


def other_signer(rounds: dict[str, Any]) -> None:
    """Client 2's claim of round 2 by client 1's key."""
    claims = rounds["stages"][0]["facts"][1]["claims"]
    claims["2"] = {**claims["2"], "key": claims["1"]["key"]}


def take_from_round_one(rounds: dict[str, Any]) -> None:
    first, second = rounds["stages"][0]["facts"]
    second["claims"]["0"] = first["claims"]["0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (edit_examples, "training, round 2: client 2: its signature does not go with what it sent"),
        (edit_update, "departure, round 1: client 0: its signature does not go with what it sent"),
        (drop_claim, "training, round 1: client 1 signed nothing"),
        (other_signer, "training, round 2: client 2's claim is signed by another key"),
        (take_from_round_one, "training, round 2: client 0: its signature does not go with what it sent"),
    ],
)
def test_an_edited_claim_does_not_verify(
    place: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None], why: str
) -> None:
    """Also where all links, the report, the card and the certificate were made to match, and no key is given."""

    def forge(evidence: dict[str, Any]) -> None:
        edit(evidence["rounds"])
        relink(evidence["rounds"])

    folder = Path(shutil.copytree(place / "run", tmp_path / "copy"))
    forged(folder, forge)
    found = verify(folder)
    assert not found.good and any(why in line for line in found.changed), found.changed


@pytest.mark.slow
def test_a_sheet_signed_anew_with_other_keys_is_seen_by_who_has_the_clients(place: Path, tmp_path: Path) -> None:
    """A server that makes keys of its own and signs all claims anew makes a sheet that holds together; the public keys
    that the clients gave out tell."""
    make_keys(tmp_path / "made", NAMES)

    def forge(evidence: dict[str, Any]) -> None:
        for fact in (fact for stage in evidence["rounds"]["stages"] for fact in stage["facts"]):
            for name, claim in fact["claims"].items():
                own = private_key(tmp_path / "made" / f"{name}.pem")
                told = claim_of(name, fact["round"], fact["received"], fact["updates"][name], claim["examples"])
                claim |= {"key": own.public_key().public_bytes_raw().hex(), "signature": own.sign(told).hex()}
        relink(evidence["rounds"])

    folder = Path(shutil.copytree(place / "run", tmp_path / "copy"))
    forged(folder, forge)
    assert verify(folder).good
    found = verify(folder, parties=place / "keys")
    assert not found.good and any("client 0's claim is signed by another key" in line for line in found.changed)
    with pytest.raises(BadInput, match=r"holds no CLIENT\.pub"):
        verify(folder, parties=tmp_path)


@pytest.mark.slow
def test_a_sheet_without_claims_is_seen_by_who_has_the_clients_keys(place: Path, tmp_path: Path) -> None:
    def forge(evidence: dict[str, Any]) -> None:
        for fact in (fact for stage in evidence["rounds"]["stages"] for fact in stage["facts"]):
            del fact["claims"], fact["received"]
        relink(evidence["rounds"])

    folder = Path(shutil.copytree(place / "run", tmp_path / "copy"))
    forged(folder, forge)
    assert verify(folder).good
    found = verify(folder, parties=place / "keys")
    assert not found.good and any("training, round 1: client 0 signed nothing" in line for line in found.changed)


@pytest.mark.slow
def test_the_server_takes_no_update_whose_claim_does_not_go_with_it(place: Path, tmp_path: Path) -> None:
    """Of four clients one signs other weights, one nothing, and one by a key that is not the one it gave out."""
    run = rounds(tmp_path)
    run.keys = Keys(place / "keys")
    run.parties = {name: public_key(place / "keys" / f"{name}.pub") for name in NAMES}
    make_keys(tmp_path / "made", ["3"])

    def exchange(number: int, names: Sequence[str], start: State, run: Rounds = run) -> list[ClientUpdate]:
        sent = [run.send(number, name, start, len(names)) for name in names]
        sent[1] = replace(sent[1], weights={name: value * 1.01 for name, value in sent[1].weights.items()})
        sent[2] = replace(sent[2], signature="", key="")
        sent[3] = Keys(tmp_path / "made").sign(number, digest_of(start), sent[3])
        return sent

    run.exchange = exchange
    run.run(state_of(run.model), 1)
    assert run.ledger.rounds == [["0"]]
    assert run.ledger.refused == [
        {
            "1": "its signature does not go with what it sent",
            "2": "sent no signed claim",
            "3": "signed with another key than its own",
        }
    ]


@pytest.mark.slow
def test_keys_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0.pem").write_text("no key")
    with pytest.raises(BadInput, match=r"0\.pem.* cannot be read .*openssl genpkey -algorithm ed25519"):
        train(config(tmp_path, local={"sign": str(tmp_path)}))
    with pytest.raises(BadInput, match="cannot be read"):
        private_key(tmp_path / "1.pem")
