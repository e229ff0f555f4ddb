"""The command line: one file a verb; parse, call, print."""

from expunge.cli.app import main

__all__ = ["main"]
