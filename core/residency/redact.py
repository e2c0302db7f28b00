"""What a caller may read of an error: nothing of this machine's folders."""

from __future__ import annotations

import re
from pathlib import Path

PATH = re.compile(r"(?<![\w/…])~?(?:/[^\s'\",;:()\[\]]+)+/?")


def without_paths(error: BaseException | str, checkpoint: Path) -> str:
    """The first line of an error, without what it tells of the machine's folders."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    # Literally first: a folder's name may hold a space, at which a pattern would stop.
    folders = (checkpoint, checkpoint.resolve(), *checkpoint.parents, *checkpoint.resolve().parents)
    for folder in folders if checkpoint.is_absolute() else ():  # any other reference tells nothing of this machine
        if folder != folder.parent:
            line = line.replace(str(folder), "…")
    return PATH.sub("…", line)
