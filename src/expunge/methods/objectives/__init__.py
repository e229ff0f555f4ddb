"""Forget terms: what pulls the forget set out of the model."""
