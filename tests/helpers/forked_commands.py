"""Commands in processes that are forked from one process, which has imported the command line once.

    python -m tests.helpers.forked_commands FOLDER < cases.json

An import takes half a second, an error of the command line a hundredth. `processes.call_each` starts this program.
Standard output and error of case n are FOLDER/n.out and FOLDER/n.err.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def run_forked(arguments: list[str], out: Path, err: Path) -> int:
    """Fork, and run `edge-hal ARGUMENTS` in the child; its exit code."""
    from edge_hal.__main__ import main

    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
        sys.argv = ["edge-hal", *arguments]
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import typer.rich_utils  # noqa: F401  typer imports it for an error, and pydantic for any value
    from pydantic import TypeAdapter  # noqa: F401

    import edge_hal.cli
    import edge_hal.commands.listen
    import edge_hal.commands.run
    import edge_hal.runtime.runner
    import edge_hal.runtime.station.options  # noqa: F401

    folder = Path(sys.argv[1])
    codes = [
        run_forked(arguments, folder / f"{number}.out", folder / f"{number}.err")
        for number, arguments in enumerate(json.load(sys.stdin))
    ]
    print(json.dumps(codes))
