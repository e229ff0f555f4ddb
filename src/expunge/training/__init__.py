"""The one training loop: resume, progress, early stop, mixed precision, several processes."""

from expunge.training.loop import Trainer
from expunge.training.outcome import Outcome

__all__ = ["Outcome", "Trainer"]
