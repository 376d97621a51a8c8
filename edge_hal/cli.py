"""The command line: registers the commands of `edge_hal/commands` and turns errors into exit codes.

Each command imports numpy, torch, ZeroMQ and the like inside its function, so that `--help` starts quickly.
"""

from __future__ import annotations

import copy
import errno
import logging
import os
import sys
import traceback
from types import TracebackType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_group

from edge_hal import __version__, logs
from edge_hal.commands import streams
from edge_hal.commands.bench import bench
from edge_hal.commands.bridge import bridge
from edge_hal.commands.calibrate import calibrate
from edge_hal.commands.cameras import cameras
from edge_hal.commands.check import check
from edge_hal.commands.correct import correct
from edge_hal.commands.demo import demo
from edge_hal.commands.doctor import doctor
from edge_hal.commands.encoders import encoders
from edge_hal.commands.evaluate import evaluate
from edge_hal.commands.export import export
from edge_hal.commands.extract import extract
from edge_hal.commands.fuse import fuse
from edge_hal.commands.harvest import harvest
from edge_hal.commands.init import init
from edge_hal.commands.keys import keys
from edge_hal.commands.label import label
from edge_hal.commands.listen import listen
from edge_hal.commands.models import models
from edge_hal.commands.plot import plot
from edge_hal.commands.procedure import procedure
from edge_hal.commands.replay import replay
from edge_hal.commands.report import report
from edge_hal.commands.run import run
from edge_hal.commands.train import train
from edge_hal.commands.view import view
from edge_hal.errors import EdgeHalError
from edge_hal.files import DENIED, FULL, file_error
from edge_hal.redaction import hide_arguments, mask, remember

NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)


class Commands(TyperGroup):
    """The commands. What was typed may hold a password, so a usage error is masked before it is printed."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return _masked(super().make_context, *args, **kwargs)

    def invoke(self, *args: Any) -> Any:
        return _masked(super().invoke, *args)


app = typer.Typer(
    name="edge-hal",
    cls=Commands,
    help="Learn the steps of a procedure from videos and ordered step lists, recognise them live, publish transitions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edge-hal {__version__}")
        raise typer.Exit


@app.callback()
def _for_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    logs.set_up("human", level=logging.WARNING)  # `run` and `bridge` set it up again, with their --log


app.command("demo")(demo)
app.command("cameras")(cameras)
app.command("run")(run)
app.command("listen")(listen)
app.command("replay")(replay)
app.command("view")(view)
app.command("report")(report)
app.command("init")(init)
app.command("check")(check)
app.command("extract")(extract)
app.command("encoders")(encoders)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("plot")(plot)
app.command("label")(label)
app.command("correct")(correct)
app.command("harvest")(harvest)
app.command("export")(export)
app.command("calibrate")(calibrate)
app.command("fuse")(fuse)
app.command("bench")(bench)
app.command("doctor")(doctor)
app.add_typer(bridge, name="bridge")
app.add_typer(keys, name="keys")
app.add_typer(models, name="models")
app.add_typer(procedure, name="procedure")


def main() -> None:
    """Run the command. Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted, 143 ended by SIGTERM. Bad input
    shows no traceback."""
    streams.protect()
    _hide_secrets()
    if os.environ.get("COLUMNS", "").strip() == "0":  # some terminals say so; tables would have no width
        del os.environ["COLUMNS"]
    try:
        command_line(sys.argv[1:2])(prog_name="edge-hal")
    except EdgeHalError as error:
        fail(error)
    except (OSError, RuntimeError) as error:
        if _is_out_of_processes(error):
            why = "the system, the container or the service limits processes and threads"
            fail(EdgeHalError("cannot start a process or a thread", why, "end others, or raise the limit"))
        if isinstance(error, OSError) and error.errno in NO_NAME:
            fail(EdgeHalError(f"cannot use {str(error.filename)[:80]}", str(error.strerror), exit_code=2))
        if not isinstance(error, OSError) or error.errno not in (*DENIED, *FULL):
            raise  # a fault of ours
        fail(file_error(f"cannot use {error.filename}" if error.filename else "cannot write a file", error))
    except MemoryError:
        fail(EdgeHalError("there is not enough memory", "", "end other programs, or use a machine with more"))
    except KeyboardInterrupt:
        sys.exit(130)


def _is_out_of_processes(error: OSError | RuntimeError) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.EAGAIN
    return str(error) == "can't start new thread"


def command_line(typed: list[str]) -> TyperGroup:
    """The command that was typed, or all of them if it is none: to build them all takes as long as to import them.

    `app()` would build all, and replace the hook that masks tracebacks.
    """
    one = copy.copy(app)
    one.registered_commands = [each for each in app.registered_commands if each.name in typed]
    one.registered_groups = [each for each in app.registered_groups if each.name in typed]
    return get_group(one if one.registered_commands or one.registered_groups else app)


def _hide_secrets() -> None:
    """Keep the secrets of the arguments out of `ps`, and of everything that is printed from now on."""
    hide_arguments(sys.argv[1:])
    for word in sys.argv[1:]:
        remember(word)
        remember(word.partition("=")[2] if word.startswith("-") else "")
    sys.excepthook = _print_traceback


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(mask("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _masked(function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except Exception as error:
        if isinstance(text := getattr(error, "message", None), str):
            error.message = mask(text)  # type: ignore[attr-defined]
        raise


def fail(error: EdgeHalError) -> NoReturn:
    """Print the error (what happened, why, what to do next), or log it where logs are JSON, and exit."""
    if logs.in_json():
        fields = {"why": error.why, "todo": error.todo, "exit_code": error.exit_code}
        logs.log.error(error.what, extra={"fields": fields})
        sys.exit(error.exit_code)
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    text = Text("error: ", style="bold red").append(error.what, style="default")
    if error.why:
        text.append(f": {error.why}", style="default")
    console.print(text)
    if error.todo:
        console.print(Text("  -> ", style="bold").append(error.todo, style="default"))
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
