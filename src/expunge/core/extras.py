"""Packages that only one command needs: optional extras, checked before the command starts."""

from __future__ import annotations

import importlib

from expunge.core.errors import BadInput


def require(field: str, value: object, package: str, extra: str) -> None:
    """Raise BadInput with the pip line unless the package of an optional extra can be imported.

    field, value: the input that needs the package.
    """
    try:
        importlib.import_module(package)
    except Exception as error:  # an incompatible build may raise anything
        absent = isinstance(error, ModuleNotFoundError) and error.name == package
        state = "is not installed" if absent else f"cannot be imported ({type(error).__name__}: {error})"
        raise BadInput.of(field, value, f"needs {package}, which {state}", f"pip install 'expunge[{extra}]'") from None
