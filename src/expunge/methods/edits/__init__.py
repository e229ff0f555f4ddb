"""Closed-form or training-free changes of weights."""
