"""Retain terms: what keeps the rest in place."""
