"""From the command to an exit code; every error of the user's is a sentence, never a traceback."""

from __future__ import annotations

import gc
import sys

from sabir.cli.app import app
from sabir.cli.printing import print_errors
from sabir.errors import InputError, SabirError, Stopped

INTERRUPTED = 130


def main() -> None:
    """Run the command line; every error of the user's is a sentence, never a traceback."""
    gc.set_threshold(
        100_000
    )  # the many parts of a plan live to its end: looking through them took a fifth of it
    try:
        code = app(standalone_mode=False, prog_name="sabir")
    except SabirError as error:
        sys.exit(_complain(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if type(error).__name__ == "Abort":  # Ctrl-C, as older versions of typer say it
            code = INTERRUPTED
        elif hasattr(error, "format_message"):  # typer's own: a wrong option, a missing argument
            error.show(sys.stderr)  # type: ignore[attr-defined]
            code = 2
            if "--json" in sys.argv:
                print_errors([InputError("", error.format_message())])
        else:
            raise
    if code == INTERRUPTED:
        _complain(Stopped("", "stopped; what was finished is kept, and the next run goes on from there."))
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: SabirError) -> int:
    if "--json" in sys.argv:
        print_errors(error.problems())
    for one in error.problems():
        print(one, file=sys.stderr)
    return error.exit_code
