"""Names of the trainers that ``nnUNetv2_train -tr`` knows: one for each method that trains, by its card.

Nothing here loads torch; the classes are in `lnsegfm.training.named_trainers`.
"""

from __future__ import annotations

from lnsegfm.errors import ConfigError
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.architectures import ARCHITECTURES


def method_trainers() -> dict[str, str]:
    """The method of each trainer, by the trainer's name; a plugin that cannot be used is left out.

    Raises:
        ConfigError: Two methods would have a trainer of one name.
    """
    named: dict[str, str] = {}
    for method, cls in METHODS.usable()[0].items():
        if cls.learns:
            name = cls.trainer_name()
            if name in named:
                raise ConfigError(f"Trainer {name}: methods {named[name]} and {method} both claim it. Rename one.")
            named[name] = method
    return named


def architecture_trainers() -> dict[str, str]:
    """The architecture of each trainer that brings its own network, by the trainer's name."""
    return {card.trainer_name(): name for name, card in ARCHITECTURES.items() if card.trainer}
