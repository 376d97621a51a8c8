"""Configuration. `model.py`: sections of the model. `learning.py`: sections of training. `config.py`: the whole, with
the sections of data and decoder. `load.py`: presets, YAML files and `--set`. `keys.py`: keys as text, and errors that
name them. `section.py`: what all sections share."""

from .config import Config
from .keys import in_words, nearest_key
from .learning import LEAST_MOVED, OFFSET, SHUFFLED, Learning, Lists, Weights
from .load import PRESETS, load_config, parse_config
from .model import Encoder, Level, Model
from .section import Positive, Section

__all__ = [
    "LEAST_MOVED",
    "OFFSET",
    "PRESETS",
    "SHUFFLED",
    "Config",
    "Encoder",
    "Learning",
    "Level",
    "Lists",
    "Model",
    "Positive",
    "Section",
    "Weights",
    "in_words",
    "load_config",
    "nearest_key",
    "parse_config",
]
