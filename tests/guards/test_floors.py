"""A lower floor never imports a higher one; and the check that says so can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the contracts of a folder's pyproject.toml, in a fresh process."""
    code = (
        "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def contracts() -> list[dict[str, Any]]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return list(tomllib.load(file)["tool"]["importlinter"]["contracts"])


def test_the_floors_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert f"{len(contracts())} kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("core/card.py", "expunge.methods"),
        ("models/logits.py", "expunge.workflows.run"),
        ("training/rate.py", "expunge.cli"),
    ],
)
def test_an_import_upwards_is_caught(low: str, high: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "src" / "expunge" / low
    path.write_text(path.read_text() + f"\nimport {high}\n")
    done = lint(tmp_path)
    assert done.returncode != 0
    assert high in done.stdout and low.removesuffix(".py").replace("/", ".") in done.stdout


def test_every_package_has_its_floor() -> None:
    """A new folder or module that no contract names would be free to import what it likes."""
    named = {
        part.strip().removeprefix("expunge.")
        for contract in contracts()
        for layer in contract.get("layers", [])
        for part in layer.replace("|", ":").split(":")
    }
    top = {p.name for p in (ROOT / "src" / "expunge").iterdir() if (p / "__init__.py").exists()}
    assert top == named, f"give a floor to {sorted(top - named)}"


def test_the_top_level_is_packages_alone() -> None:
    files = {path.name for path in (ROOT / "src" / "expunge").glob("*.py")}
    assert files == {"__init__.py", "__main__.py"}
