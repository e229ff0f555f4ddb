"""Expunge makes a trained model forget, and proves it."""
