"""`import`: another program's configuration as settings of ours, which are kept if a server could use them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..config.settings import CONFIG, settings_from_environment
from ..errors import FileError, PluginError
from ..imports.app_file import OPTIONS, Ttl, app_file
from ..imports.llama_swap import read_llama_swap
from ..names import COMMAND
from ..plugins import Plugins, load_plugins
from .actions import OK


def import_settings(source: Path, output: Path, budget: str | None, ttl: Ttl) -> int:
    """Write the settings that `source` becomes to `output`, and print what could not be carried over.

    Raises a ResidencyError, and writes nothing, if the file cannot be used, or if there is a file at `output`.
    """
    if output.exists():
        raise FileError(f"{output}: exists already; name another file with --output, or delete it.")
    imported = read_llama_swap(source, by_memory=budget is not None)
    plugins = load_plugins()
    text = app_file(source, imported, _strategy(plugins), budget, ttl)
    fresh = output.with_name(f"{output.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        _check(fresh, plugins)
        fresh.replace(output)
    finally:
        fresh.unlink(missing_ok=True)
    for note in imported.notes:
        print(f"{source}:{note.line}: {note.key}: {note.sentence}", file=sys.stderr)
    print(f"Wrote {output}. Read its comments, then serve it with: {COMMAND} serve {output}")
    return OK


def _strategy(plugins: Plugins) -> str:
    """The first strategy that takes the options which an import may write."""
    for registered in plugins.strategies.values():
        if registered.options.model_fields.keys() >= OPTIONS:
            return registered.name
    raise PluginError(f"No strategy takes the options {', '.join(sorted(OPTIONS))}.")


def _check(file: Path, plugins: Plugins) -> None:
    """Raise a ResidencyError if a server could not be started with the settings."""
    from ..serving.service import Service  # imported here, because it imports the server

    before = os.environ.get(CONFIG)
    os.environ[CONFIG] = str(file)
    try:
        settings = settings_from_environment()
    finally:
        os.environ.pop(CONFIG) if before is None else os.environ.update({CONFIG: before})
    Service(settings.model_copy(update={"capture": None, "state": None}), plugins).close()
