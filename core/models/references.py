"""A model reference leads to a checkpoint directory.

References: `embedded`; `synthetic:<architecture>`, optionally with `#<copy>`; a local directory; a hub
id such as `org/name`, optionally with `@<revision>`.
"""

from __future__ import annotations

import os
import re
from glob import escape
from pathlib import Path

from ..errors import ModelReferenceError
from ..files import anchored
from . import checkpoint
from .embedded import embedded
from .heads import read_head
from .synthetic import ARCHITECTURES, parse, synthetic

HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]{1,200})?", re.ASCII)
HUB_SECONDS = 4.0  # until a hub that does not answer is given up
OFFLINE = (
    f"Offline there are embedded, {', '.join(f'synthetic:{name}' for name in ARCHITECTURES)} and local directories"
)


def anchor(reference: str, folder: Path) -> str:
    """Make a relative local directory absolute, as seen from the `folder` of the file that names it.

    Raises ModelReferenceError or FileError for what can be no reference; writes and loads nothing.
    """
    if reference == "embedded":
        return reference
    if reference.startswith("synthetic:"):
        parse(reference.removeprefix("synthetic:"))
        return reference
    path = anchored(reference, folder)
    looks_local = reference.startswith(("/", "./", "../", "~")) or reference in (".", "..")
    if looks_local or path.is_dir():
        return str(path)  # links are followed when the model is loaded
    if not HUB_ID.fullmatch(reference):
        raise ModelReferenceError(
            f"'{reference[:100]}' is no model reference: no such directory, and no hub id (org/name or"
            f" org/name@revision). {OFFLINE}."
        )
    return reference


def resolve(reference: str) -> Path:
    """The checkpoint directory that `reference` leads to, links followed, written or downloaded if it has to be.

    Raises ModelReferenceError, a sentence with what to do instead.
    """
    directory = _find(anchor(reference, Path.cwd())).resolve()
    checkpoint.check(directory)
    read_head(directory)
    return directory


def _find(reference: str) -> Path:
    if reference == "embedded":
        return embedded()
    if reference.startswith("synthetic:"):
        return synthetic(reference.removeprefix("synthetic:"))
    if Path(reference).is_absolute():
        return Path(reference)
    repo, _, revision = reference.partition("@")
    return _download(repo, revision or None)


def _is_wanted(name: str) -> bool:
    return "/" not in name and checkpoint.belongs(name)


def _download(repo: str, revision: str | None) -> Path:
    """From the hub, or from its cache on this machine when the hub does not answer."""
    for name in ("HF_HOME", "XDG_CACHE_HOME"):  # empty is as good as unset, but not to the hub's client
        if not os.environ.get(name):
            os.environ.pop(name, None)
    import httpx
    from huggingface_hub import constants, list_repo_files, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    named = f"'{repo}'" + (f" at revision '{revision}'" if revision else "")
    if constants.HF_HUB_CACHE.startswith("~"):  # it would become a folder of this name in the current one
        raise ModelReferenceError(
            f"This user has no home directory, and so no cache for {named}."
            " Point HF_HOME at a folder that can be written, and RESIDENCY_CACHE at another."
        )
    offline = constants.HF_HUB_OFFLINE
    try:
        if not offline:
            # Asked first, because the hub's own client retries for minutes.
            httpx.head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except httpx.HTTPError:
        offline = True
    try:
        # Which files belong to a checkpoint no pattern can say, so that they are named one by one.
        names = None if offline else [escape(n) for n in list_repo_files(repo, revision=revision) if _is_wanted(n)]
        found = snapshot_download(repo, revision=revision, allow_patterns=names, local_files_only=offline)
        return Path(found)
    except GatedRepoError as error:
        raise ModelReferenceError(
            f"The hub gives {named} to approved users only; log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelReferenceError(f"The hub has no {named}; check the spelling, or log in if it is private.") from error
    except Exception as error:  # whatever the network layers raise; the user needs the way out
        raise ModelReferenceError(
            f"The hub cannot be reached for {named}, and no copy of it is on this machine. {OFFLINE}."
        ) from error
