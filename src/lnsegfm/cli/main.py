"""The ``lnsegfm`` program: its commands, and how an error reaches the user."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer

from lnsegfm import __version__
from lnsegfm.cli.adapter_apply_command import apply
from lnsegfm.cli.adapter_show_command import show_adapter
from lnsegfm.cli.architectures_command import architectures
from lnsegfm.cli.data_arrange_command import arrange
from lnsegfm.cli.data_check_command import check
from lnsegfm.cli.data_convert_command import convert
from lnsegfm.cli.data_phantom_command import phantom
from lnsegfm.cli.demo_command import demo
from lnsegfm.cli.env_command import env
from lnsegfm.cli.evaluate_command import evaluate
from lnsegfm.cli.finetune_command import finetune
from lnsegfm.cli.help_pages import HelpCommand
from lnsegfm.cli.methods_command import methods
from lnsegfm.cli.models_export_command import export_model
from lnsegfm.cli.models_import_command import import_model
from lnsegfm.cli.models_list_command import list_models, show
from lnsegfm.cli.models_postprocess_command import postprocess
from lnsegfm.cli.models_pull_command import pull
from lnsegfm.cli.models_remove_command import remove
from lnsegfm.cli.models_verify_command import verify
from lnsegfm.cli.out_of_memory import memory_line
from lnsegfm.cli.plugin_commands import ProgramGroup
from lnsegfm.cli.predict_command import predict
from lnsegfm.cli.presets_command import presets
from lnsegfm.cli.pretrain_command import pretrain
from lnsegfm.cli.report_command import report
from lnsegfm.cli.study_report_command import study_report
from lnsegfm.cli.study_run_command import study_run
from lnsegfm.cli.study_status_command import study_status
from lnsegfm.cli.terminal_lines import whole_words
from lnsegfm.cores import share_threads
from lnsegfm.errors import Interrupted, LnSegFmError
from lnsegfm.grouped_lines import grouped_lines
from lnsegfm.messages import printable

app = typer.Typer(
    name="lnsegfm",
    cls=ProgramGroup,
    help="Adapt 3D medical segmentation models to a clinic's own scans from a handful of annotated cases. "
    "Research software: not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"lnsegfm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for command in (demo, finetune, predict, presets, evaluate, report, pretrain, methods, architectures, env):
    app.command(cls=HelpCommand)(command)

data = typer.Typer(help="Labelled scans: convert or arrange them, look at them, or make some.", no_args_is_help=True)
data.command(cls=HelpCommand)(convert)
data.command(cls=HelpCommand)(arrange)
data.command(cls=HelpCommand)(check)
data.command(cls=HelpCommand)(phantom)
app.add_typer(data, name="data")

models = typer.Typer(help="Base models by name: list, fetch, import, check, export.", no_args_is_help=True)
for name, function in (
    ("list", list_models),
    ("show", show),
    ("pull", pull),
    ("import", import_model),
    ("verify", verify),
    ("export", export_model),
    ("postprocess", postprocess),
    ("remove", remove),
):
    models.command(name, cls=HelpCommand)(function)
app.add_typer(models, name="models")

study = typer.Typer(help="Methods compared over shots and draws, each run a job.", no_args_is_help=True)
study.command("run", cls=HelpCommand)(study_run)
study.command("status", cls=HelpCommand)(study_status)
study.command("report", cls=HelpCommand)(study_report)
app.add_typer(study, name="study")

adapter = typer.Typer(help="What an adaptation changed: look into it, put it on its base.", no_args_is_help=True)
adapter.command(cls=HelpCommand)(apply)
adapter.command("show", cls=HelpCommand)(show_adapter)
app.add_typer(adapter, name="adapter")


def main() -> None:
    """Run the program: exit code 0 done, 1 some cases failed, 2 the request or its input is wrong, 130 interrupted."""
    share_threads()
    with whole_words():
        _run()


def _run() -> None:
    arrived: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        arrived.append(number)
        raise KeyboardInterrupt

    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # a closed terminal; Windows has none, and nohup ignores it
    ignored = signal.getsignal(hangup) == signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM, *(() if ignored else (hangup,))):
        signal.signal(number, interrupt)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # a closed pipe raises here, not while Python shuts down
    except SystemExit as stop:
        if stop.code == 130:  # typer's answer to a KeyboardInterrupt
            print("Interrupted.", file=sys.stderr)
        raise
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `lnsegfm ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # no permission, no space, a file where a folder should be
        if error.errno is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"lnsegfm: {printable(place)}{error.strerror}. Check the path, its permissions and the space left.",
            file=sys.stderr,
        )
        sys.exit(2)
    except LnSegFmError as error:
        if arrived:  # some library that was being loaded took the interrupt for a failure of its own
            print("Interrupted.", file=sys.stderr)
            sys.exit(130)
        for line in grouped_lines(str(error).splitlines()):
            print(f"lnsegfm: {printable(line)}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:  # torch's errors of memory are RuntimeErrors
        if (said := memory_line(error)) is None:
            raise
        print(f"lnsegfm: {said}", file=sys.stderr)
        sys.exit(2)
