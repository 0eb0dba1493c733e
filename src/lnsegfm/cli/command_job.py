"""The body of jobs that are a part of a command: the command itself, with ``--part``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lnsegfm.cli.job_options import OF_A_LIST
from lnsegfm.errors import ConfigError

if TYPE_CHECKING:
    from lnsegfm.jobs.attempt import Attempt
    from lnsegfm.progress import Progress

COMMANDS = (("predict",), ("evaluate",), ("data", "check"), ("data", "convert"), ("pretrain",))


def run_command(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> Mapping[str, Any]:  # noqa: ARG001
    """Run a part of a command.

    Args:
        inputs: ``command``, ``words`` (its options and arguments) and ``folder`` (where it runs).
        attempt: Not used: parts of a command write where the command does, each file whole.
        progress: Not used: the command reports to the job's log.

    Returns:
        Its ``exit_code``: 1 where some cases failed, 2 where all did; which ones the command's own files say.

    Raises:
        ConfigError: Another command than those that have parts.
        LnSegFmError: What the command raises.
    """
    from lnsegfm.cli.main import app

    command, words = tuple(inputs["command"]), list(inputs["words"])
    if command not in COMMANDS:
        raise ConfigError(f"Job: lnsegfm {' '.join(command)} has no parts. Use predict, evaluate, data or pretrain.")
    os.chdir(inputs["folder"])
    token = OF_A_LIST.set(True)
    try:
        code = app(args=[*command, *words], prog_name="lnsegfm", standalone_mode=False)
    except SystemExit as stop:
        code = stop.code
    finally:
        OF_A_LIST.reset(token)
    return {"exit_code": int(code or 0)}
