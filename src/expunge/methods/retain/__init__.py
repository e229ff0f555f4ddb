"""Retain terms: they hold the model in place on the retain data."""
