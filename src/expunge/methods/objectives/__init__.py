"""Forget terms: losses that remove the forget set from the model."""
