"""Config files beside weights, in JSON or YAML: read as data, with limits. Nothing in them is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from lnsegfm.errors import ModelError

LARGEST = 4 * 2**20
"""Bytes of a config; published ones have some thousand."""
MOST = 100_000
"""Entries of a config. An alias of YAML counts as what it stands for, so a short file can have any number."""
SUFFIXES = (".json", ".yaml", ".yml")


def find_config(folder: Path, *stems: str) -> Path | None:
    """The config of one of these names, in JSON or YAML.

    Raises:
        ModelError: There are several.
    """
    files = [file for stem in stems for suffix in SUFFIXES if (file := folder / f"{stem}{suffix}").is_file()]
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise ModelError(f"{folder}: {names} are configs of one name, and which counts is not known. Keep one of them.")
    return files[0] if files else None


def config_files(folder: Path, *stems: str) -> tuple[Path, ...]:
    """The configs of these names that are there.

    Raises:
        ModelError: There are several of one name.
    """
    return tuple(file for stem in stems if (file := find_config(folder, stem)) is not None)


def read_config(folder: Path, *stems: str) -> dict[str, Any]:
    """The table that a config holds; empty where there is none, or it holds none.

    Args:
        folder: Where to look.
        stems: Its name without its ending, or its names.

    Raises:
        ModelError: It is too large, not JSON or YAML, or there are several of the name.
    """
    file = find_config(folder, *stems)
    if file is None:
        return {}
    if file.stat().st_size > LARGEST:
        raise ModelError(f"{file}: more than {LARGEST // 2**20} MB, which no config of a model has. Copy it again.")
    kind = "JSON" if file.suffix == ".json" else "YAML"
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text) if kind == "JSON" else yaml.safe_load(text)
        read = _Plain().copy(content)
    except (ValueError, yaml.YAMLError, RecursionError):
        raise ModelError(f"{file}: not {kind} in plain values. Copy the model's folder again.") from None
    return read if isinstance(read, dict) else {}


class _Plain:
    """Copies tables and lists of plain values, a limited number of them."""

    def __init__(self) -> None:
        self.number = 0

    def copy(self, value: Any) -> Any:
        """The value, of which no two parts are one object; what JSON has no type for becomes text.

        Raises:
            ValueError: It has too many entries.
        """
        self.number += 1
        if self.number > MOST:
            raise ValueError("too many entries")
        if isinstance(value, dict):
            return {str(key): self.copy(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.copy(each) for each in value]
        return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
