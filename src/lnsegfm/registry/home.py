"""Where models live on this machine: below ``LNSEGFM_HOME``, or the platform's data folder.

``models/NAME/`` holds a stored model, ``downloads/`` what was fetched and what is still under way, ``manifests/`` JSON
files with cards of one's own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lnsegfm.errors import ConfigError

CARD = "card.json"
# One plain name on every file system: no path, no drive, no case to differ in, no dot that Windows would drop.
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?")
NAME_RULE = "lower case letters, digits, dots and dashes, a letter or digit first and last, 64 at most"


def home() -> Path:
    """The folder of everything that is pulled, imported or cached.

    ``LNSEGFM_HOME`` where it is set, else the data folder that the platform gives to a user's programs.
    """
    chosen = os.environ.get("LNSEGFM_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("lnsegfm", appauthor=False)


def model_place(name: str) -> Path:
    """Where the model of a name is stored, whether it is there or not.

    Raises:
        ConfigError: The name is no plain name: a path, say.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"Model name {name!r}: not a plain name. Use {NAME_RULE}.")
    return home() / "models" / name


def installed() -> tuple[str, ...]:
    """Names of the stored models, sorted."""
    cards = (home() / "models").glob(f"*/{CARD}")
    return tuple(sorted(card.parent.name for card in cards if NAME.fullmatch(card.parent.name)))
