"""The ``lnsegfm`` program: its commands, and how an error reaches the user."""

from __future__ import annotations

import os
import sys

import typer

from lnsegfm.errors import Interrupted, LnSegFmError

app = typer.Typer(
    name="lnsegfm",
    help="Adapt 3D medical segmentation models to a clinic's own scans from a handful of annotated cases. "
    "Research software: not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the program: exit code 0 done, 1 some cases failed, 2 the request or its input is wrong, 130 interrupted."""
    try:
        app()
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `lnsegfm ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except LnSegFmError as error:
        for line in str(error).splitlines():
            print(f"lnsegfm: {line}", file=sys.stderr)
        sys.exit(2)
