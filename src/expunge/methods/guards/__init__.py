"""Forgetting at inference: the weights stay, the answer changes."""
