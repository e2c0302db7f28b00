"""A model reference leads to a checkpoint directory.

References: `embedded`; `synthetic:<architecture>`, optionally with `#<copy>`; a local directory; a hub
id such as `org/name`, optionally with `@<revision>`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from ..errors import ModelReferenceError
from ..system.files import anchored
from . import checkpoint
from .embedded import embedded
from .heads import read_head
from .synthetic import (
    ARCHITECTURES,
    in_cache,
    parse,
    synthetic,
)

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


def where(reference: str) -> str:
    """Where the checkpoint is, or will come from, in words; writes and downloads nothing.

    Raises ModelReferenceError, as `resolve` would.
    """
    reference = anchor(reference, Path.cwd())
    if reference.startswith("synthetic:"):
        directory, nbytes = in_cache(reference.removeprefix("synthetic:"))
        return "in the cache" if directory.is_dir() else f"written to the cache at the first run, {nbytes >> 20} MiB"
    if reference == "embedded":
        return "in this repository"
    if Path(reference).is_absolute():
        checkpoint.check(Path(reference))
        read_head(Path(reference))
        return "on this machine"
    repo, _, revision = reference.partition("@")
    return _look_up(repo, revision or None)


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
    _use_hub_cache(repo)
    from huggingface_hub import list_repo_files, snapshot_download

    with _hub_errors(repo, revision):
        if not _hub_answers():
            return Path(snapshot_download(repo, revision=revision, local_files_only=True))
        # Which files belong to a checkpoint no pattern can say, so that they are named one by one.
        names = [name for name in list_repo_files(repo, revision=revision) if _is_wanted(name)]
        found = Path(snapshot_download(repo, revision=revision, allow_patterns=[escape(name) for name in names]))
        if checkpoint.INDEX in names and checkpoint.WEIGHTS not in names:
            parts = [escape(name) for name in checkpoint.indexed(found)]
            snapshot_download(repo, revision=revision, allow_patterns=parts)
        return found


def _use_hub_cache(repo: str) -> None:
    """Raises ModelReferenceError for a user who has nowhere to keep it."""
    for name in ("HF_HOME", "XDG_CACHE_HOME"):  # empty is as good as unset, but not to the hub's client
        if not os.environ.get(name):
            os.environ.pop(name, None)
    from huggingface_hub import constants

    if constants.HF_HUB_CACHE.startswith("~"):  # it would become a folder of this name in the current one
        raise ModelReferenceError(
            f"This user has no home directory, and so no cache for '{repo}'."
            " Point HF_HOME at a folder that can be written, and RESIDENCY_CACHE at another."
        )


def _look_up(repo: str, revision: str | None) -> str:
    """What `_download` would find."""
    _use_hub_cache(repo)
    from huggingface_hub import HfApi, snapshot_download

    with _hub_errors(repo, revision):
        if _hub_answers():
            HfApi().model_info(repo, revision=revision, timeout=HUB_SECONDS)
            return "downloaded from the hub at the first run"
        found = snapshot_download(repo, revision=revision, local_files_only=True)
    checkpoint.check(Path(found))
    return "in the hub's cache on this machine"


def _hub_answers() -> bool:
    """Asked first, because the hub's own client retries for minutes."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        httpx.head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except httpx.HTTPError:
        return False
    return True


@contextmanager
def _hub_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Whatever goes wrong with the hub becomes a ModelReferenceError."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    named = f"'{repo}'" + (f" at revision '{revision}'" if revision else "")
    try:
        yield
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
