"""The configuration of an experiment: TOML read into frozen dataclasses, written back, and compared."""

from seq2split.config.errors import ConfigError
from seq2split.config.idle import idle_settings
from seq2split.config.reading import load
from seq2split.config.settings import (
    BatchesConfig,
    BucketsConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainingConfig,
    VocabularyConfig,
)
from seq2split.config.writing import differences, dumps

__all__ = [
    "BatchesConfig",
    "BucketsConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SearchConfig",
    "TrainingConfig",
    "VocabularyConfig",
    "differences",
    "dumps",
    "idle_settings",
    "load",
]
