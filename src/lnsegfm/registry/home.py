"""Where models live on this machine: below ``LNSEGFM_HOME``, or the platform's data folder.

``models/NAME/`` holds a stored model, ``downloads/`` what was fetched and what is still under way, ``recorded/`` the
hashes of first downloads, ``manifests/`` JSON files with cards of one's own. The package itself brings models too,
which are read where they lie and never written.
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


BUILT_IN = Path(__file__).with_name("built_in")
"""Models that the package brings, a folder each, as a stored model is laid out."""


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
    """Where the model of a name is stored, or will be: a built-in one in the package.

    Raises:
        ConfigError: The name is no plain name: a path, say.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"Model name {name!r}: not a plain name. Use {NAME_RULE}.")
    return BUILT_IN / name if is_built_in(name) else home() / "models" / name


def is_built_in(name: str) -> bool:
    """Whether the package brings a model of this name."""
    return NAME.fullmatch(name) is not None and (BUILT_IN / name / CARD).is_file()


def built_in() -> tuple[str, ...]:
    """Names of the models that the package brings, sorted."""
    return _names_in(BUILT_IN)


def installed() -> tuple[str, ...]:
    """Names of the models that are on this machine, stored or built in, sorted."""
    return tuple(sorted({*_names_in(home() / "models"), *built_in()}))


def _names_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(card.parent.name for card in folder.glob(f"*/{CARD}") if NAME.fullmatch(card.parent.name)))
