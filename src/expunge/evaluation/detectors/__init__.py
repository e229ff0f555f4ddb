"""Detectors of poisoned or mislabelled training rows, one file each (`evaluation/detection.py` defines them)."""
