"""Unlearning methods: one file per method; the folder is the registry."""
