"""The one training loop: resume, progress, early stop, mixed precision, several processes."""

from expunge.training.loop import Outcome, Trainer

__all__ = ["Outcome", "Trainer"]
