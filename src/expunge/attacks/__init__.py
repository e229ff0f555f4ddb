"""Attacks on a changed model: each file is an attack, and its stem is its name."""
