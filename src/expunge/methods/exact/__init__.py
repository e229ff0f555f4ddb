"""Exact schemes: models trained so that a deletion leaves no trace."""
