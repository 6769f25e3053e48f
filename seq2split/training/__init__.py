"""Training: the trainer, its callbacks, update rules, schedules, accumulation and averages."""

from seq2split.training.callbacks import Callback
from seq2split.training.interrupts import Interrupted
from seq2split.training.rules import UpdateRule
from seq2split.training.schedules import WarmupSchedule
from seq2split.training.trainer import Trainer

__all__ = ["Callback", "Interrupted", "Trainer", "UpdateRule", "WarmupSchedule"]
