"""Inference-time forgetting: the weights stay, the answer changes."""
