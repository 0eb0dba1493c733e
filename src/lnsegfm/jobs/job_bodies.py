"""What jobs do: functions by name. A record of a job can name these and no others.

A body is called with the job's inputs, an `Attempt` and a `Progress`, and gives its result, a table that JSON can hold.
Files of the result go to ``attempt.files``; what an earlier attempt of the job left there, finished files alone, is
there again, so that a body that saves its state goes on. A body that can stop between two steps asks
``progress.stoppable()`` and raises `lnsegfm.errors.Interrupted` with its state saved. Two copies of one job may run at
the same time, each in a folder of its own: a body writes nowhere else, or only what is the same whoever writes it, by
atomic renames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lnsegfm.errors import UnknownName
from lnsegfm.plugins import Plugin, PluginTable

if TYPE_CHECKING:
    from lnsegfm.jobs.attempt import Attempt
    from lnsegfm.progress import Progress

BodyFunction = Callable[[Mapping[str, Any], "Attempt", "Progress"], Mapping[str, Any]]


@dataclass(frozen=True)
class JobBody:
    """A function that does jobs.

    Args:
        place: Where it lies, ``module:function``; the module is imported when a job is done.
        function: The function itself, of a plugin.
    """

    place: str = ""
    function: BodyFunction | None = None

    def load(self) -> BodyFunction:
        """The function."""
        if self.function is not None:
            return self.function
        module, _, name = self.place.partition(":")
        found: BodyFunction = getattr(import_module(module), name)
        return found


def _of_plugin(found: Any, plugin: Plugin) -> JobBody:
    if not callable(found):
        raise plugin.error("it is no function")
    return JobBody(function=found)


_BUILT_IN = {
    "command": JobBody("lnsegfm.cli.command_job:run_command"),
    "study-base": JobBody("lnsegfm.study.study_job:do_base_run"),
    "study-rate": JobBody("lnsegfm.study.study_job:do_rate_choice"),
    "study-run": JobBody("lnsegfm.study.study_job:do_study_run"),
}
BODIES: PluginTable[JobBody] = PluginTable("jobs", _BUILT_IN, _of_plugin)
"""Bodies by name. The built-in ones are texts, so that the table imports none of them."""


def body_named(name: str) -> BodyFunction:
    """The function that a job names.

    Raises:
        UnknownName: There is none.
        PluginError: It is a plugin's, and cannot be used.
    """
    if name not in BODIES:
        raise UnknownName(f"Job body {name}: there is none. Known are: {', '.join(BODIES) or 'none'}.")
    return BODIES[name].load()
