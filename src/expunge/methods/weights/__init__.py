"""Choices of the trainable weights."""
