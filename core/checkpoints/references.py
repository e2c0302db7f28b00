"""Model references, and the checkpoint directories that they lead to.

A reference is `embedded`; `synthetic:<architecture>`, optionally with `#<copy>`; a local directory; or a hub id such as
`org/name`, optionally with `@<revision>`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from ..errors import ModelReferenceError
from ..system.files import resolve_path
from ..tasks.pooling import module_configs
from . import checkpoint
from .embedded import embedded_directory
from .heads import check_heads
from .synthetic import ARCHITECTURES, cache_entry, parse, synthetic_directory

HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]{1,200})?", re.ASCII)
HUB_SECONDS = 4.0  # for the hub to answer
OFFLINE = (
    f"Available offline: embedded, {', '.join(f'synthetic:{name}' for name in ARCHITECTURES)} and local directories"
)


def resolve_reference(reference: str, folder: Path) -> str:
    """The reference, with a local directory made absolute relative to `folder`, that of the file that names it.

    Raises ModelReferenceError or FileError if it cannot be a reference. Writes and loads nothing.
    """
    if reference == "embedded":
        return reference
    if reference.startswith("synthetic:"):
        parse(reference.removeprefix("synthetic:"))
        return reference
    path = resolve_path(reference, folder)
    looks_local = reference.startswith(("/", "./", "../", "~")) or reference in (".", "..")
    if looks_local or path.is_dir():
        return str(path)  # `resolve` follows links, when the model is loaded
    if not HUB_ID.fullmatch(reference):
        raise ModelReferenceError(
            f"'{reference[:100]}' is not a model reference: there is no such directory, and it is not a hub id"
            f" (org/name or org/name@revision). {OFFLINE}."
        )
    return reference


def resolve(reference: str) -> Path:
    """The checkpoint directory that `reference` leads to, with links followed. Writes or downloads it if needed.

    Raises ModelReferenceError, which says what to do instead.
    """
    directory = _find(resolve_reference(reference, Path.cwd())).resolve()
    checkpoint.check(directory)
    check_heads(directory)
    return directory


def describe_source(reference: str) -> str:
    """A phrase that says where the checkpoint is, or will come from. Writes and downloads nothing.

    Raises ModelReferenceError, as `resolve` would.
    """
    reference = resolve_reference(reference, Path.cwd())
    if reference.startswith("synthetic:"):
        directory, nbytes = cache_entry(reference.removeprefix("synthetic:"))
        return "in the cache" if directory.is_dir() else f"written to the cache by the first run, {nbytes >> 20} MiB"
    if reference == "embedded":
        return "in this repository"
    if Path(reference).is_absolute():
        checkpoint.check(Path(reference))
        check_heads(Path(reference))
        return "on this machine"
    repo, _, revision = reference.partition("@")
    return _look_up(repo, revision or None)


def _find(reference: str) -> Path:
    if reference == "embedded":
        return embedded_directory()
    if reference.startswith("synthetic:"):
        return synthetic_directory(reference.removeprefix("synthetic:"))
    if Path(reference).is_absolute():
        return Path(reference)
    repo, _, revision = reference.partition("@")
    return _download(repo, revision or None)


def _is_needed(name: str) -> bool:
    return "/" not in name and checkpoint.is_part(name)


def _download(repo: str, revision: str | None) -> Path:
    """Download the checkpoint from the hub, or find it in the hub's local cache if the hub does not answer."""
    _check_hub_cache(repo)
    from huggingface_hub import list_repo_files, snapshot_download

    with _hub_errors(repo, revision):
        if not _hub_answers():
            return Path(snapshot_download(repo, revision=revision, local_files_only=True))
        # Files are named one by one, because no pattern matches those of a checkpoint alone.
        names = [name for name in list_repo_files(repo, revision=revision) if _is_needed(name)]
        directory = Path(snapshot_download(repo, revision=revision, allow_patterns=[escape(name) for name in names]))
        if checkpoint.INDEX in names and checkpoint.WEIGHTS not in names:
            parts = [escape(name) for name in checkpoint.indexed_files(directory)]
            snapshot_download(repo, revision=revision, allow_patterns=parts)
        if modules := [escape(name) for name in module_configs(directory)]:
            snapshot_download(repo, revision=revision, allow_patterns=modules)
        return directory


def _check_hub_cache(repo: str) -> None:
    """Raise ModelReferenceError if the user has no directory for the hub's cache."""
    for name in ("HF_HOME", "XDG_CACHE_HOME"):  # the hub's client does not treat an empty variable as unset
        if not os.environ.get(name):
            os.environ.pop(name, None)
    from huggingface_hub import constants

    if constants.HF_HUB_CACHE.startswith("~"):  # the client would create a folder named `~` in the current one
        raise ModelReferenceError(
            f"This user has no home directory, so there is no cache for '{repo}'."
            " Set HF_HOME to a writable folder, and RESIDENCY_CACHE to another."
        )


def _look_up(repo: str, revision: str | None) -> str:
    """A phrase that says where `_download` would get the checkpoint from."""
    _check_hub_cache(repo)
    from huggingface_hub import HfApi, snapshot_download

    with _hub_errors(repo, revision):
        if _hub_answers():
            HfApi().model_info(repo, revision=revision, timeout=HUB_SECONDS)
            return "downloaded from the hub by the first run"
        directory = snapshot_download(repo, revision=revision, local_files_only=True)
    checkpoint.check(Path(directory))
    return "in the hub's cache on this machine"


def _hub_answers() -> bool:
    """Whether the hub answers within seconds. Its own client would retry for minutes."""
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
    """Turn all errors of the hub's client into ModelReferenceError."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name = f"'{repo}'" + (f" at revision '{revision}'" if revision else "")
    try:
        yield
    except GatedRepoError as error:
        raise ModelReferenceError(
            f"The hub gives access to {name} to approved users only; log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelReferenceError(f"The hub has no {name}; check the spelling, or log in if it is private.") from error
    except Exception as error:  # the client raises exceptions of many kinds; the user needs an alternative
        raise ModelReferenceError(
            f"The hub cannot be reached for {name}, and there is no copy on this machine. {OFFLINE}."
        ) from error
