"""The work of each command: one file per command."""
