"""The models that audit and provenance compare: checked before anything is read, then opened one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from expunge.core.contracts import Model, Reporter
from expunge.core.errors import Faults
from expunge.data.worlds import is_builtin
from expunge.models.open import check, open_model
from expunge.models.packaged import check_packaged
from expunge.pipeline.worlds import config as builtin_config
from expunge.pipeline.worlds import folder_of, package_of


def check_sources(sources: Mapping[str, str], trust_code: bool) -> None:
    """Check models by role as far as possible without loading them. Raises BadInput with all faults."""
    faults = Faults()
    for role, source in sources.items():
        with faults:
            if package := package_of(source):
                check_packaged(package)
            elif is_builtin(source):
                builtin_config(source)
            else:
                check(source, trust_code, field="model" if role == "after" else role)
    faults.raise_any()


def open_sources(sources: Mapping[str, str], trust_code: bool, reporter: Reporter) -> Iterator[tuple[str, str, Model]]:
    """(role, folder or hub name, opened model), each built first where it is an embedded one.

    The caller lets a model go before it takes the next, or both are in memory.
    """
    for role, source in sources.items():
        folder = folder_of(source, reporter)
        yield role, folder, open_model(folder, trust_code)
