"""A job: one piece of work as a frozen value, a named function of the package with its arguments as plain JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.storage import content_hash

JOB_FORMAT = "lnsegfm.job/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,120}")


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Args:
        name: What the job and the folder of its result are called: letters, digits and ``._=+-``; unique in its list.
        body: The function that does it, by its name in `lnsegfm.jobs.job_bodies.BODIES`.
        inputs: Its arguments: what JSON can hold.

    Raises:
        ConfigError: A name that no folder can have, or inputs that JSON cannot hold.
    """

    name: str
    body: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"Job {self.name!r}: not a name. Use letters, digits and ._=+-, at most 121 of them.")
        try:
            object.__setattr__(self, "inputs", json.loads(json.dumps(self.inputs, allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"Job {self.name}: its inputs are not plain JSON ({error}). Give texts and numbers."
            ) from None

    @property
    def identity(self) -> str:
        """Changes with whatever of the job changes."""
        return content_hash([self.name, self.body, self.inputs])

    def to_json(self) -> dict[str, Any]:
        """The record that its folder holds."""
        return {"format": JOB_FORMAT, "name": self.name, "body": self.body, "inputs": self.inputs}

    @classmethod
    def from_json(cls, content: Any) -> Job:
        """Read what `to_json` gave.

        Raises:
            DataError: It is something else.
        """
        if not isinstance(content, dict) or content.get("format") != JOB_FORMAT:
            raise DataError(f"Record of a job: not of the format {JOB_FORMAT}. Run the command that made it again.")
        try:
            return cls(content["name"], content["body"], content["inputs"])
        except (KeyError, TypeError, ConfigError) as error:
            raise DataError(f"Record of a job: damaged ({error}). Run the command that made it again.") from None
