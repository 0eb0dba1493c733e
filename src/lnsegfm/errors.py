"""The project's errors: one base, one subclass per kind of mistake.

A message is one line: ``<what> <value>: <why it cannot be>. <what to do>.`` The command line prints it and exits
with code 2.
"""

from __future__ import annotations

from collections.abc import Sequence


class LnSegFmError(Exception):
    """Anything that a user can put right: the command line prints its lines and exits with code 2."""

    def __str__(self) -> str:  # KeyError, a base of some subclasses, would print the repr
        return " ".join(str(a) for a in self.args)


class ConfigError(LnSegFmError, ValueError):
    """A setting that cannot be."""


class Diverged(ConfigError):
    """Training whose loss is no number any more."""


class UnknownName(LnSegFmError, KeyError):
    """A name that no table holds: a method, a preset, a label."""


class PluginError(LnSegFmError, ImportError):
    """Something that another package brings and that cannot be used: the message names package and entry point."""


class DataError(LnSegFmError, ValueError):
    """Labelled scans, images or masks that cannot be used.

    Args:
        problems: One line each. All problems are reported at once.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems: Sequence[str] = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class UnsafeFile(LnSegFmError, ValueError):
    """A file that would have to execute something, or leave its folder, to be read."""


class ArchiveError(LnSegFmError, ValueError):
    """A zip or tar that is none, or that is encrypted, damaged or empty."""


class ModelError(LnSegFmError, ValueError):
    """A model folder, a checkpoint or a plans file that is not what it should be."""


class TransferError(ModelError):
    """Base weights that do not fit the network they are meant for."""


class RunMismatch(LnSegFmError, ValueError):
    """A run folder that holds a run with other settings or other data."""


class ProcessLost(LnSegFmError, RuntimeError):
    """A process that trains together with this one is gone, perhaps with its node; the same command continues."""


class Interrupted(LnSegFmError):
    """Work was asked to stop, by SIGINT for one; its state is saved and the same command continues. Exit code 130."""
