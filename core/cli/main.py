"""The entry point: runs a command, and turns errors into one line and an exit status instead of a traceback."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import ResidencyError, ResultsError
from ..system.terminal import lenient_streams
from .actions import BAD_INPUT, FAILED, INTERRUPTED, OK
from .commands import commands

EXAMPLES = {  # values for errors about flags without a value
    "--output": "results",
    "--repetitions": "10",
    "--repeats": "5",
    "--strategies": "small,large",
    "--model": "sst2=embedded",
    "--compare": "results/default/latest",
    "--tolerance": "5%",
    "--rate": "200/h",
    "--memory-budget": "12GiB",
    "--ttl": "auto",
    "--config": "app.yaml",
    "--host": "127.0.0.1",
    "--port": "8001",
    "--node": "10.0.0.7:8001",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit status.

    0 is success, 1 a failed trial or a check that was not met, 2 bad input, 130 an interruption.
    """
    _handle_signals()
    with lenient_streams() as out:
        status = _status(arguments)
    if out.error is not None:
        print(f"error: standard output: {out.error.strerror}.", file=sys.stderr)
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
    except SystemExit:  # click exits this way if the reader of its output closed the pipe, which is not an error
        return OK
    return OK if status is None else int(status)


def _sentence(error: click.UsageError) -> str:
    """The error of a wrong command line as a sentence."""
    if isinstance(error, click.NoSuchOption):
        tip = f"; did you mean {' or '.join(error.possibilities)}?" if error.possibilities else "."
        return f"there is no flag {error.option_name}{tip}"
    if isinstance(error, click.BadOptionUsage):
        flag = error.option_name
        if "takes a value" not in error.message and "requires" not in error.message:
            return f"{flag} takes no value."
        return f"{flag} needs a value{f', such as {flag} {EXAMPLES[flag]}' if flag in EXAMPLES else ''}."
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"the argument {error.param.make_metavar(error.ctx) if error.ctx else error.param.name} is missing."
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{max(error.param.opts, key=len)}: {error.message.rstrip('.')}."
    message = error.format_message()
    if message.startswith("Got unexpected extra"):
        return f"unexpected argument '{message[message.index('(') + 1 : message.rindex(')')]}'."
    if message.startswith("No such command"):
        name, *similar = re.findall(r"'([^']*)'", message)
        tip = f"; did you mean {' or '.join(similar)}?" if similar else "."
        return f"there is no command '{name}'{tip}"
    return f"{message[:1].lower()}{message[1:]}"


def _handle_signals() -> None:
    """Treat SIGTERM, and SIGHUP unless `nohup` made it ignored, as Ctrl-C, so that measurements are reported.

    SIGINT is not changed, because a shell makes background jobs ignore it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
