"""What one verb alone needs is an extra: its absence is one sentence with the pip line, before anything starts."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from expunge.cli.app import run
from expunge.core.errors import BadInput
from expunge.core.extras import require
from test_federation import config

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"optuna": "tune", "datasketch": "neighbours", "ray": "ray", "gguf": "real", "bitsandbytes": "quantised"} | {
    "tenseal": "crypto",
    "phe": "crypto",
    "cryptography": "crypto",
    "opacus": "dp",
}


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, list[str]]:
    """Package -> a command that is right in all else and needs it."""
    data = tmp_path / "f.jsonl"
    data.write_text(json.dumps({"question": "Who?", "answer": "Ada."}) + "\n", encoding="utf-8")
    request = tmp_path / "request.yaml"
    request.write_text(f"model: builtin:digits\nmethod: ga\nforget: builtin:digits/class:3\nout: {tmp_path / 'out'}\n")
    real = tmp_path / "real.yaml"
    real.write_text(f"model: builtin:smollm2\nforget: {data}\nout: {tmp_path / 'out'}\n", encoding="utf-8")
    federations = {
        "tenseal": {"local": {"encrypt": "ckks"}, "history": "none"},
        "phe": {"local": {"encrypt": "paillier"}, "history": "none"},
        "cryptography": {"local": {"sign": str(tmp_path)}},
        "opacus": {"local": {"sgd": 0.05, "dp": {}}},
    }
    for package, options in federations.items():
        (tmp_path / f"{package}.yaml").write_text(json.dumps(config(tmp_path, **options)), encoding="utf-8")
    return {
        **{package: ["train", str(tmp_path / f"{package}.yaml")] for package in federations},
        "bitsandbytes": ["run", str(request), "--set", "budget.optimizer=adamw_8bit"],
        "gguf": ["run", str(real)],
        "optuna": ["tune", str(request), "--out", str(tmp_path / "tuned")],
        "datasketch": ["neighbours", "--forget", str(data), "--corpus", str(data), "--out", str(tmp_path / "more")],
        "ray": ["bench", "authors", "--methods", "ga", "--engine", "ray", "--out", str(tmp_path / "bench")],
    }


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_extra_is_one_sentence_before_anything_starts(
    package: str,
    commands: dict[str, list[str]],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path_factory.mktemp("cache")))  # which holds no real model
    there = sorted(tmp_path.iterdir())
    assert run(commands[package]) == 2
    out, err = capsys.readouterr()
    assert f"needs {package}, which is not installed; pip install 'expunge[{EXTRAS[package]}]'" in err
    assert not out and "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == there


def test_a_package_that_is_there_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", ModuleType("optuna"))
    require("tune", "", "optuna", "tune")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import what_it_lacks", "ModuleNotFoundError: No module named 'what_it_lacks'"),
        ("raise OSError('lib.so: undefined symbol')", "OSError: lib.so: undefined symbol"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("def (", "SyntaxError: "),
    ],
)
def test_a_package_that_is_broken_is_not_called_absent(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=re.escape(f"half_installed, which cannot be imported ({why}")):
        require("tune", "", "half_installed", "tune")


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=! ;]", one)[0].lower() for one in requirements}


def test_the_core_install_has_none_of_them() -> None:
    extras = PROJECT["optional-dependencies"]
    assert not names(PROJECT["dependencies"]) & set(EXTRAS)
    for package, extra in EXTRAS.items():
        assert package in names(extras[extra])
    assert {"tune", "neighbours"} <= set(re.findall(r"\w+", next(x for x in extras["dev"] if x.startswith("expunge["))))


def test_no_extra_brings_torchvision() -> None:
    """No build of it matches a CPU torch from the package index, and transformers breaks where it cannot load."""
    every = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    assert not names(every) & {"torchvision", "timm", "lightly", "pytorch-ood"}


def test_every_declared_extra_that_a_message_names_exists() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    asked = re.findall(r"\b(?<!_)require\([^)]*\"(\w+)\"\)", source)
    python_alone = {"federated", "diffusion"}  # tests/test_flower.py, tests/test_diffusion_family.py
    assert {*EXTRAS.values(), *python_alone} == set(asked) <= set(PROJECT["optional-dependencies"])
