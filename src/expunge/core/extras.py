"""Packages that one verb alone needs: optional extras of the installation, asked for before the verb starts."""

from __future__ import annotations

import importlib

from expunge.core.errors import BadInput


def require(field: str, value: object, package: str, extra: str) -> None:
    """Raise BadInput with the pip line unless the package of an optional extra can be imported.

    field, value: what asked for it, as the sentence names them.
    """
    try:
        importlib.import_module(package)
    except Exception as error:  # a build that does not fit may raise anything
        absent = isinstance(error, ModuleNotFoundError) and error.name == package
        why = "is not installed" if absent else f"cannot be imported ({type(error).__name__}: {error})"
        raise BadInput.of(field, value, f"needs {package}, which {why}", f"pip install 'expunge[{extra}]'") from None
