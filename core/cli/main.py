"""From a shell's arguments to an exit status; nobody sees a traceback for a mistake of their own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import ResidencyError, ResultsError
from ..system.terminal import lenient_streams
from .actions import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    OK,
)
from .commands import commands

EXAMPLES = {  # of values, for flags that were given none
    "--output": "results",
    "--repetitions": "10",
    "--repeats": "5",
    "--strategies": "small,large",
    "--model": "sst2=embedded",
    "--compare": "results/default/latest",
    "--tolerance": "5%",
    "--rate": "200/h",
    "--config": "app.yaml",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 if it succeeded, 1 if a trial failed or a check was not met, 2 for bad input, and 130 if
    it was interrupted.
    """
    _end_as_at_ctrl_c()
    with lenient_streams() as out:
        status = _status(arguments)
    if out.lost is not None:
        print(f"error: standard output: {out.lost.strerror}.", file=sys.stderr)
        return status or FAILED
    return status


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status = commands.main(arguments, prog_name=Path(sys.argv[0]).name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return BAD_INPUT
    except click.UsageError as error:
        usage = f"\n\n{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help'." if error.ctx else ""
        print(f"error: {_sentence(error)}{usage}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return FAILED
    except ResidencyError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED if isinstance(error, ResultsError) else BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit:  # so click ends where the reader of its output has left, which is no failure
        return OK
    return OK if status is None else int(status)


def _sentence(error: click.UsageError) -> str:
    """What click says of a wrong command line, in plain words."""
    if isinstance(error, click.NoSuchOption):
        tip = f"; did you mean {' or '.join(error.possibilities)}?" if error.possibilities else "."
        return f"there is no flag {error.option_name}{tip}"
    if isinstance(error, click.BadOptionUsage):
        flag = error.option_name
        if "takes a value" not in error.message and "requires" not in error.message:
            return f"{flag} takes no value."
        return f"{flag} needs a value{f', such as {flag} {EXAMPLES[flag]}' if flag in EXAMPLES else ''}."
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{error.param.make_metavar(error.ctx) if error.ctx else error.param.name} is missing."
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{max(error.param.opts, key=len)}: {error.message.rstrip('.')}."
    said = error.format_message()
    if said.startswith("Got unexpected extra"):
        return f"{said[said.index('(') + 1 : said.rindex(')')]}: unexpected; see the usage below."
    return f"{said[:1].lower()}{said[1:]}"


def _end_as_at_ctrl_c() -> None:
    """At SIGTERM, and at SIGHUP unless `nohup` has it ignored, keep and report what was measured.

    SIGINT stays as it was inherited: a shell ignores it for what runs in the background.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
