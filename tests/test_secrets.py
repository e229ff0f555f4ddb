"""What stands in the environment stays there: variables in requests, and the judge's key."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import expunge
from expunge.alignment.endpoint import HOST, KEY, key_for
from expunge.alignment.judges import judge_of
from expunge.cli.app import run
from expunge.core import errors
from expunge.core.errors import BadInput, as_written
from expunge.core.request import Request
from expunge.core.train_config import TrainConfig
from expunge.core.variables import allow, expand
from expunge.data.load import load
from worlds import tiny

SECRET = "hunter2-hunter2"
GOOD = {"model": "lm", "forget": "f.jsonl", "method": "npo", "out": "runs/a"}


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPUNGE_ENV", raising=False)
    monkeypatch.setenv("MY_SECRET", SECRET)
    monkeypatch.setenv("EXPUNGE_PLACE", "pl4ces/mine")
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setattr(errors, "_hidden", {})  # what is hidden here is hidden nowhere else


@pytest.mark.parametrize("field", ["model", "out", "gold", "forget", "retain", "holdout", "test", "reference"])
@pytest.mark.parametrize(
    "text", ["$MY_SECRET", "x/${MY_SECRET}/y", f"${{{KEY}}}", f"${KEY}.jsonl", "${PATH}", "a$MY_SECRET"]
)
def test_a_variable_that_is_not_ours_is_refused_by_name(field: str, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        request = Request.parse({**GOOD, field: text})
        load(getattr(request, field), field)
    said = str(caught.value)
    assert said.startswith(f"{field}: ") and SECRET not in said
    assert "never expands" in said if KEY in text else "--env" in said


@pytest.mark.parametrize(
    "text", ["${}", "${A-B}", "${MY_SECRET:-x}", "$5", "${ MY_SECRET}", "${MY_SECRET", "$$MY_SECRET"]
)
def test_what_names_no_variable_is_refused_too(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        Request.parse({**GOOD, "out": text})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["price$", "a$/b", "$ x", "café$é"])
def test_a_dollar_alone_is_a_dollar(text: str) -> None:
    assert expand(text, "out") == text


def test_a_request_works_with_the_value_and_is_stored_as_written() -> None:
    written = {**GOOD, "model": "${EXPUNGE_PLACE}/lm", "out": "$EXPUNGE_PLACE/run", "gold": "~/gold"}
    request = Request.parse(written)
    assert (request.model, request.out) == ("pl4ces/mine/lm", "pl4ces/mine/run")
    assert request.gold.endswith("/gold") and not request.gold.startswith("~")
    stored = request.to_dict()
    assert {name: stored[name] for name in written} == written
    assert Request.parse(stored).to_dict() == stored


def test_a_training_file_is_held_to_the_same(tmp_path: Path) -> None:
    values = {"model": {"architecture": "llama"}, "data": "d.jsonl", "out": "bases/${MY_SECRET}"}
    with pytest.raises(BadInput, match="--env MY_SECRET"):
        TrainConfig.parse(values)
    assert TrainConfig.parse({**values, "out": "${EXPUNGE_PLACE}/base"}).out == "${EXPUNGE_PLACE}/base"


def test_env_lets_a_named_variable_expand_for_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "request.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "model": "${MY_SECRET}/lm", "out": str(tmp_path / "out")}))
    assert run(["run", str(path), "--plan"]) == 2
    assert "--env MY_SECRET" in capsys.readouterr().err
    assert run(["run", str(path), "--plan", "--env", "MY_SECRET"]) == 2
    said = capsys.readouterr().err
    assert "--env" not in said and "${MY_SECRET}/lm" in said and SECRET not in said
    assert run(["run", str(path), "--plan"]) == 2
    assert "--env MY_SECRET" in capsys.readouterr().err


def test_the_same_in_python() -> None:
    with expunge.allow_env("MY_SECRET"):
        assert Request.parse({**GOOD, "out": "$MY_SECRET"}).out == SECRET
    with pytest.raises(BadInput, match="does not expand"):
        Request.parse({**GOOD, "out": "$MY_SECRET"})


@pytest.mark.parametrize("name", [KEY, "EXPUNGE_SIGNING_KEY", "", "A B", "A=1", "$HOME", "1A"])
def test_env_takes_names_and_no_key(name: str) -> None:
    with pytest.raises(BadInput, match="--env"):
        allow([name])


@pytest.mark.parametrize(
    "verb",
    [
        "run",
        "train",
        "audit",
        "bench",
        "tune",
        "forget",
        "foresee",
        "exposure",
        "provenance",
        "neighbours",
        "mark",
        "judge",
        "repair",
    ],
)
def test_every_verb_that_opens_a_path_has_the_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert "--env" in capsys.readouterr().out


def test_values_come_back_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_SHORT", "data")
    expand("${EXPUNGE_PLACE}/x", "out")
    expand("$EXPUNGE_SHORT", "out")
    assert as_written("'pl4ces/mine/../y' is gone") == "'${EXPUNGE_PLACE}/../y' is gone"
    assert as_written("give data, not 'data/x'") == "give data, not '$EXPUNGE_SHORT/x'"
    monkeypatch.setenv("HOME", "/somebody")
    expand("$HOME/x", "out")
    assert as_written("/somebody/x") == "/somebody/x"


def test_no_file_of_a_run_holds_the_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, data, gold and folder come from a variable: every file of the run names the variable."""
    place = tmp_path / SECRET
    place.mkdir()
    request = tiny(place, epochs=1)
    monkeypatch.setenv("EXPUNGE_PLACE", str(place))
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    written = {
        name: str(value).replace(str(place), "${EXPUNGE_PLACE}") if isinstance(value, str) else value
        for name, value in request.items()
    }
    written |= {
        "out": "${EXPUNGE_PLACE}/run",
        "gold": "${EXPUNGE_PLACE}/base-copy",
        "budget": {"epochs": 1},
        "method": {"forget": "npo", "weights": "lora"},
    }
    (place / "base-copy").symlink_to(place / "base")
    path = tmp_path / "request.yaml"
    written["gold"] = "none"
    path.write_text(yaml.safe_dump(written))
    assert run(["run", str(path), "--json"]) in (0, 1)
    out = place / "run"
    assert yaml.safe_load((out / "request.yaml").read_text())["out"] == "${EXPUNGE_PLACE}/run"
    assert json.loads((out / "evidence.json").read_text())["request"]["model"] == "${EXPUNGE_PLACE}/base"
    holding = [
        file.relative_to(out).as_posix()
        for file in out.rglob("*")
        if file.is_file() and SECRET.encode() in file.read_bytes()
    ]
    # PEFT opens an adapter's base by this path: without it the saved model would not open.
    assert holding in ([], ["model/adapter_config.json"])
    assert run(["run", str(path), "--resume", "--json"]) in (0, 1)


class Server(BaseHTTPRequestHandler):
    """Keeps what it is asked; answers 0, or with the redirect that it was given."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(dict(self.headers))  # type: ignore[attr-defined]
        if to := self.server.redirect:  # type: ignore[attr-defined]
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.send_header("Location", to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.server.body  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *given: Any) -> None: ...


@pytest.fixture
def servers() -> Iterator[tuple[Any, Any]]:
    made = []
    for _ in range(2):
        server: Any = HTTPServer(("127.0.0.1", 0), Server)
        server.asked, server.redirect, server.status = [], "", 302
        server.body = json.dumps({"choices": [{"message": {"content": "0"}}]}).encode()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.append(server)
    yield made[0], made[1]
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_judge_follows_no_redirect(servers: tuple[Any, Any], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = servers
    monkeypatch.setenv(HOST, "127.0.0.1")
    first.redirect, first.status = f"http://localhost:{second.server_port}/v1/chat/completions", status
    with pytest.raises(BadInput, match="redirect") as caught:
        judge_of(f"llm:http://127.0.0.1:{first.server_port}/v1").scores(["p"], ["a"])
    assert second.asked == [] and len(first.asked) == 1
    assert len(caught.value.faults) == 1 and SECRET not in str(caught.value)


def test_the_key_goes_to_the_host_that_is_named(servers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = servers
    url = f"llm:http://127.0.0.1:{first.server_port}/v1"
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{second.server_port}")  # never for this machine itself
    for host, sent in {
        "127.0.0.1": True,
        f"127.0.0.1:{first.server_port}": True,
        f"127.0.0.1:{second.server_port}": False,
        "localhost": False,
        "judge.example": False,
        "127.0.0.1@evil": False,
        "127.0.0.1:x": False,
    }.items():
        first.asked.clear()
        monkeypatch.setenv(HOST, host)
        judge_of(url).scores(["p"], ["a"])
        assert [row.get("Authorization") for row in first.asked] == [f"Bearer {SECRET}" if sent else None], host
    assert second.asked == []
    monkeypatch.delenv(HOST)
    with pytest.raises(BadInput, match=HOST):
        judge_of(url)
    monkeypatch.delenv(KEY)
    judge_of(url).scores(["p"], ["a"])
    assert "Authorization" not in first.asked[-1]


@pytest.mark.parametrize(
    ("address", "host", "what"),
    [
        ("http://judge.example/v1", "judge.example", "plain http"),
        ("http://10.0.0.1/v1", "10.0.0.1", "plain http"),
        ("http://localhost.example/v1", "localhost.example", "plain http"),
    ],
)
def test_the_key_goes_over_no_plain_http(address: str, host: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST, host)
    with pytest.raises(BadInput, match=what):
        judge_of(f"llm:{address}")
    assert key_for(urlsplit(address.replace("http:", "https:"))) == SECRET


@pytest.mark.parametrize(
    "address",
    [
        "http://user:pass@127.0.0.1/v1",
        "http://127.0.0.1@evil.example/v1",
        "ftp://x/v1",
        "file:///etc/passwd",
        "http:///v1",
        "http://[::1/v1",
        "http://a\\@b/v1",
        "http://a b/v1",
        "http://a\tb/v1",
        "http://x:99999/v1",
        "http://x\x1b/v1",
        "//x/v1",
        "http://é/v1",
    ],
)
def test_an_address_that_two_readers_could_read_in_two_ways_is_none(address: str) -> None:
    with pytest.raises(BadInput, match="is not an http address"):
        judge_of(f"llm:{address}")


def test_a_key_that_no_header_carries_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST, "127.0.0.1")
    monkeypatch.setenv(KEY, f"{SECRET}\r\nX: y")
    with pytest.raises(BadInput, match=KEY) as caught:
        judge_of("llm:http://127.0.0.1:9/v1")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"{}",
        b"\xff\xfe",
        b"x" * 2**21,
        b"",
        json.dumps({"choices": [{"message": {"content": SECRET * 9}}]}).encode(),
    ],
)
def test_a_hostile_judge_ends_in_a_sentence(
    servers: tuple[Any, Any], body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOST, "127.0.0.1")
    servers[0].body = body
    with pytest.raises(BadInput) as caught:
        judge_of(f"llm:http://127.0.0.1:{servers[0].server_port}/v1").scores(["p"], ["a"])
    assert len(caught.value.faults) == 1 and "hunter2" not in str(caught.value)
