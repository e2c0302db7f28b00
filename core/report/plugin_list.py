"""Every strategy and loader: where it comes from, what it does, and its options."""

from __future__ import annotations

import textwrap

from tabulate import tabulate

from ..config.options import describe_options
from ..plugins import Plugins


def plugin_list(plugins: Plugins) -> str:
    parts = []
    for title, known in (("Strategies", plugins.strategies), ("Loaders", plugins.loaders)):
        parts.append(f"{title}\n")
        for entry in known.values():
            parts.append(f"  {entry.name} ({entry.source})\n    {entry.summary or 'No description.'}")
            if options := describe_options(entry.options):
                rows = [(name, kind, f"default: {default}") for name, kind, default in options]
                parts.append(textwrap.indent(tabulate(rows, tablefmt="plain"), "    "))
        parts.append("")
    return "\n".join(parts).rstrip()
