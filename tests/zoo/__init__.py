"""Tiny models of every architecture of transformers, and a plain loop to compare with."""
