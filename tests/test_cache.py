"""Cache entries are whole or made anew, are for their owner alone, and are written down for purge."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from expunge import run
from expunge.cli.app import run as expunge
from expunge.core import cache
from expunge.core.errors import BadInput
from expunge.core.files import delete, sweep, temporary, write_text
from expunge.core.request import Request
from expunge.pipeline.plan import plan
from worlds import command, environment, tiny


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder_entry(name: str = "readouts/aa") -> Path:
    with cache.saving(name) as folder:
        (folder / "arrays").write_bytes(b"0123456789")
        (folder / "more.json").write_text("{}")
    found = cache.load_folder(name)
    assert found is not None
    return found


def test_what_is_kept_comes_back(place: Path) -> None:
    value = {"x": [1.5, None, "é"], "n": 3}
    cache.save("attacks/aa.json", value)
    assert cache.load("attacks/aa.json") == value
    assert cache.load("attacks/bb.json") is None
    assert (folder_entry() / "arrays").read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:10]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text(path.read_text().replace("1.5", "99.0")),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text('{"value": 1}'),
        lambda path: path.write_text("null"),
    ],
)
def test_a_damaged_value_is_absent(damage: Any, place: Path) -> None:
    cache.save("answers/aa.json", [1.5])
    damage(place / "answers/aa.json")
    assert cache.load("answers/aa.json") is None
    assert not (place / "answers/aa.json").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "arrays").write_bytes(b"012345678"),
        lambda folder: (folder / "arrays").write_bytes(b"9123456789"),
        lambda folder: (folder / "arrays").unlink(),
        lambda folder: (folder / "added").write_text(""),
        lambda folder: (folder / cache.SUMS).write_text("{}"),
        lambda folder: (folder / cache.SUMS).unlink(),
        lambda folder: ((folder / cache.SUMS).unlink(), os.mkfifo(folder / cache.SUMS)),
        lambda folder: ((folder / "arrays").rename(folder.parents[1] / "a"), (folder / "arrays").symlink_to("../../a")),
    ],
)
def test_a_damaged_folder_is_absent(damage: Any, place: Path) -> None:
    damage(folder_entry())
    assert cache.load_folder("readouts/aa") is None
    assert not (place / "readouts/aa").exists()
    folder_entry()  # and can be made again


def test_entries_that_took_each_other_s_place_are_absent(place: Path) -> None:
    one, two = folder_entry("readouts/aa"), folder_entry("readouts/bb")
    one.rename(place / "x")
    two.rename(one)
    (place / "x").rename(two)
    assert cache.load_folder("readouts/aa") is None and cache.load_folder("readouts/bb") is None
    cache.save("answers/aa.json", 1)
    cache.save("answers/bb.json", 2)
    os.replace(place / "answers/aa.json", place / "answers/bb.json")
    assert cache.load("answers/bb.json") is None


def test_an_entry_that_is_a_link_is_absent_and_what_it_leads_to_stays(place: Path, tmp_path: Path) -> None:
    folder_entry().rename(tmp_path / "elsewhere")
    (place / "readouts/aa").symlink_to(tmp_path / "elsewhere")
    assert cache.load_folder("readouts/aa") is None
    assert (tmp_path / "elsewhere/arrays").is_file()


@pytest.mark.parametrize(
    "odd",
    [
        lambda kind: kind.write_text("a file"),
        lambda kind: kind.symlink_to(kind.parent),
        lambda kind: (kind.mkdir(), kind.chmod(0o777)),
    ],
)
def test_a_kind_s_folder_that_is_not_ours_is_refused(odd: Any, place: Path) -> None:
    place.mkdir()
    odd(place / "readouts")
    with pytest.raises(BadInput, match="EXPUNGE_CACHE"):
        cache.load_folder("readouts/aa")


def test_the_scratch_sweeps_what_is_ours_alone(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    place.mkdir()
    (place / cache.SCRATCH).symlink_to(tmp_path / "mine")
    with pytest.raises(BadInput):
        cache.sweep_scratch()
    (place / cache.SCRATCH).unlink()
    (place / cache.SCRATCH / "mine").mkdir(parents=True)
    cache.sweep_scratch()
    assert (tmp_path / "mine" / "deep").is_dir() and (place / cache.SCRATCH / "mine").is_dir()


def test_a_folder_that_others_may_write_to_is_refused(place: Path) -> None:
    place.mkdir()
    place.chmod(0o775)
    with pytest.raises(BadInput, match=r"is writable by other users.*run chmod go-w"):
        cache.cache_folder()
    place.chmod(0o755)
    assert cache.cache_folder() == place
    if os.geteuid() == 0:
        os.chown(place, 12345, -1)
        with pytest.raises(BadInput, match="belongs to another user"):
            cache.cache_folder()


def test_entries_are_for_their_owner_alone(place: Path) -> None:
    old = os.umask(0)
    try:
        folder_entry()
        cache.save("attacks/aa.json", 1)
    finally:
        os.umask(old)
    assert not [path for path in (place, *place.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_the_umask_counts_for_other_files(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "report.html", "x")
        write_text(tmp_path / "salt.json", "x", 0o600)
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("report.html", "salt.json")]
    assert modes == [0o640, 0o600]


def test_the_journal_names_what_was_made_and_used(place: Path, tmp_path: Path) -> None:
    cache.save("attacks/used.json", 1)
    file = tmp_path / "run" / "caches.jsonl"
    with cache.journal(file):
        cache.load("attacks/used.json")
        cache.save("answers/made.json", [1])
        folder_entry("readouts/made")
    cache.save("attacks/later.json", 1)
    with file.open("a") as log:  # a line cut short, and names that must not lead anywhere
        log.write('"../../etc"\n"readouts/../../x"\n"/readouts/x"\n5\n"readouts/cu')
    assert cache.read_journal(file) == ["answers/made.json", "attacks/used.json", "readouts/made"]
    with cache.journal(file):
        cache.note("readouts/next")
    assert "readouts/next" in cache.read_journal(file), "a line that was cut short does not swallow the next"


def test_what_a_killed_process_left_in_the_making_goes(place: Path) -> None:
    code = (
        "import os; from expunge.core import cache\n"
        "with cache.saving('readouts/aa') as folder:\n"
        "    (folder / 'arrays').write_text('x'); print(folder, flush=True); os.kill(os.getpid(), 9)"
    )
    left = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    ).stdout.strip()
    assert Path(left).is_dir() and cache.load_folder("readouts/aa") is None
    with cache.saving("readouts/bb") as mine:
        assert not Path(left).exists() and mine.exists()
    assert [path.name for path in (place / cache.SCRATCH).iterdir()] == []


def test_sweeping_puts_back_what_was_moved_aside_for_nothing(tmp_path: Path) -> None:
    final, other = tmp_path / "model", tmp_path / "report"
    old = temporary(final, "old")
    old.mkdir()
    temporary(final).mkdir()
    temporary(other).write_text("half")
    (tmp_path / ".report.notes").write_text("the user's own")
    assert len(sweep(tmp_path)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".report.notes", "model"]


def test_deleting_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (tmp_path / "link").symlink_to(precious)
    assert delete(tmp_path / "link") and not delete(tmp_path / "absent")
    assert (precious / "file").exists() and not (tmp_path / "link").exists()


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    budget = {"steps": 2, "stop": "none", "learning_rate": 1e-3}
    return {**tiny(tmp_path_factory.mktemp("tiny"), epochs=1), "gold": "one", "budget": budget}


def figures(evidence: dict[str, Any]) -> Any:
    return [(s["name"], s["subject"], s["value"]) for s in evidence["scores"] if s["side"] != "cost"]


def test_a_cache_that_was_tampered_with_or_cut_short_changes_nothing(
    request_: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    first = run({**request_, "out": str(tmp_path / "first")}).evidence
    for file in (place / "readouts").rglob("arrays.safetensors"):
        arrays = load_file(file)
        arrays["nll_N"] *= 30
        save_file(arrays, file)
    (gold,) = (path for path in (place / "gold").iterdir() if path.is_dir())
    weights = load_file(gold / "model.safetensors")
    save_file({k: v * 1.5 for k, v in weights.items()}, gold / "model.safetensors", {"format": "pt"})
    assert figures(run({**request_, "out": str(tmp_path / "second")}).evidence) == figures(first)
    for file in [path for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"]:
        os.truncate(file, min(40, file.stat().st_size))
    assert figures(run({**request_, "out": str(tmp_path / "third")}).evidence) == figures(first)


@pytest.mark.slow
def test_an_embedded_world_that_was_cut_short_is_built_anew(place: Path) -> None:
    from expunge.pipeline.worlds import build, is_trained

    folder = build("builtin:digits")
    assert is_trained(folder)
    os.truncate(folder / "model.safetensors", 100)
    assert not is_trained(folder)
    os.truncate(folder / "expunge.json", 100)
    wanted = {"model": "builtin:digits", "data": "builtin:digits/train", "forget": {"class": 3}, "method": "ga"}
    assert plan(Request.parse({**wanted, "out": "never"})).gold == "train"
    assert is_trained(build("builtin:digits"))


@pytest.mark.slow
def test_purge_takes_every_entry_of_a_run_and_of_a_killed_one(
    request_: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    values = {**request_, "audit": "standard", "purpose": "erase"}
    run({**values, "out": str(tmp_path / "run")})
    made = [path for path in place.rglob("*") if path.is_file()]
    assert {"readouts", "attacks", "gold"} <= {path.relative_to(place).parts[0] for path in made}
    salt = json.loads((tmp_path / "run" / "salt.json").read_text())
    assert len(salt["caches"]) >= 3
    assert expunge(["purge", str(tmp_path / "run")]) == 0
    assert not [path for path in place.rglob("*") if path.is_file()]
    long = {"epochs": 300, "stop": "none", "learning_rate": 1e-3}
    killed = {**values, "audit": "none", "budget": long, "out": str(tmp_path / "killed")}
    process = subprocess.Popen(command(killed, tmp_path / "killed.yaml"), env=environment())
    while not (tmp_path / "killed" / "log.jsonl").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert [path for path in place.rglob("*") if path.is_file()]
    assert expunge(["purge", str(tmp_path / "killed")]) == 0
    assert not [path for path in place.rglob("*") if path.is_file()]
