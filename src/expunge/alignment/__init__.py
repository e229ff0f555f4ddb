"""Responsible-AI domains: refusal judges, drift, concept vectors, prediction and containment."""
