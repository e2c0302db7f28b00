"""The version of each model that a server has, and the replacement of a version whose files have changed."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING

from ..checkpoints import checkpoint
from ..checkpoints.references import resolve
from ..config.engines import EngineChoice
from ..errors import EngineFailed, InUse, ModelReferenceError

if TYPE_CHECKING:
    from .copies import Copy
    from .keeper import Keeper
    from .loaded import LoadedModel

log = logging.getLogger("residency")
PATH = re.compile(r"(?<![\w/…])~?(?:/[^\s'\",;:()\[\]]+)+/?")
REVISION = re.compile(r"/snapshots/([0-9a-f]{40})$")  # in the hub's cache
COMPUTE_TIMEOUT = 60.0  # seconds that a new version waits for a model that computes, or hangs


@dataclass
class Version:
    """The files of a checkpoint, that is their directory and their identity; or how to start an engine."""

    directory: Path  # with links resolved; empty for an engine
    identity: str
    engine: EngineChoice | None = field(default=None, compare=False)
    sha256: str | None = field(default=None, compare=False)  # None until it is computed

    @property
    def revision(self) -> str | None:
        """The commit on the hub, or None if the files are not from there."""
        match = REVISION.search(str(self.directory))
        return match[1] if match else None

    @property
    def name(self) -> str | None:
        """The name of the version in answers: the beginning of the digest. None until that is computed."""
        return self.sha256 and f"sha256:{self.sha256[:16]}"

    def read_digest(self) -> None:
        """Compute the digest of all files. It is cached; the first time, gigabytes take seconds."""
        if self.sha256 is None and self.engine is None:
            self.sha256 = checkpoint.cached_sha256(self.directory)


class Versions:
    """The current version of each model, the same for all strategies of a server.

    Each load checks whether the reference leads to other files, or the files have changed. If so, the new version is
    loaded beside every copy in memory, and then replaces all of them at once, so that no request fails. If it cannot be
    loaded, the older version stays. A reference to the hub is resolved again only for a manual load.
    """

    def __init__(self, references: Mapping[str, str | EngineChoice]) -> None:
        self.references: dict[str, str | EngineChoice] = dict(references)
        self.failures: dict[str, str] = {}
        """The error of each model that has no version, by model id."""
        self.keepers: list[Keeper] = []
        self.switch_lock = Lock()  # held while a version is replaced, and while a loaded model is added to a pool
        self._current: dict[str, Version] = {}
        self._rejected: dict[str, str] = {}  # by model id, the identity of a version that cannot be loaded
        self._logged: dict[str, str] = {}  # by model id, the error that was logged last
        self._locks: defaultdict[str, RLock] = defaultdict(RLock)  # one for each model

    def find_all(self) -> None:
        """Find the first version of each model. An error is logged, and concerns that model alone."""
        for model_id in self.references:
            with suppress(ModelReferenceError):
                self.current(model_id)

    def items(self) -> Iterator[tuple[str, Version]]:
        """The id and version of every model that has a version."""
        yield from list(self._current.items())

    def redact(self, model_id: str, error: BaseException | str) -> str:
        """The error as callers may read it, without paths, and without what is of an engine's command."""
        if isinstance(error, EngineFailed):
            error = error.for_callers
        version = self.get(model_id)
        return without_paths(error, version.directory if version else Path(str(self.references.get(model_id, ""))))

    def get(self, model_id: str) -> Version | None:
        """The current version if it is known already, or None."""
        return self._current.get(model_id)

    def current(self, model_id: str) -> Version:
        """The current version; the reference is resolved if there is none yet. Raises ModelReferenceError."""
        with self._locks[model_id]:
            if model_id not in self._current:
                self._current[model_id] = self._find(model_id)
            return self._current[model_id]

    def refresh(self, model_id: str) -> Version:
        """The version to load now, after a switch to changed files. If the switch fails, that is logged.

        Raises ModelReferenceError if the model has no version at all.
        """
        with self._locks[model_id]:
            current = self.current(model_id)
            try:
                found = self._locate(model_id, current)
                if found != current and self._rejected.get(model_id) != found.identity:
                    self._switch_to(model_id, found)
            except Exception as error:
                if self._logged.get(model_id) != str(error):  # once, not at each load
                    log.error("Model '%s' stays as it is: %s", model_id, error)
                self._logged[model_id] = str(error)
            else:
                self._logged.pop(model_id, None)
            return self._current[model_id]

    def resolve_again(self, model_id: str) -> None:
        """Resolve the reference again, and switch to the version that it leads to. Raises ResidencyError."""
        with self._locks[model_id]:
            found = self._find(model_id)
            if model_id not in self._current:
                self._current[model_id] = found
            elif found != self._current[model_id]:
                self._switch_to(model_id, found)
            elif found.engine is not None:
                self._current[model_id] = found  # settings may have changed that need no other process

    def set_reference(self, model_id: str, reference: str | EngineChoice) -> None:
        """Set the reference of a model, which may be new, and switch to the version that it leads to.

        Raises ResidencyError; nothing has changed then.
        """
        with self._locks[model_id]:
            before = self.references.get(model_id)
            self.references[model_id] = reference
            try:
                self.resolve_again(model_id)
            except BaseException:
                if before is None:
                    self.forget(model_id)
                else:
                    self.references[model_id] = before
                    if model_id in self._current:
                        self.failures.pop(model_id, None)
                raise

    def forget(self, model_id: str) -> None:
        """Drop a model that is no longer served."""
        with self._locks[model_id]:
            for records in (self.references, self.failures, self._current, self._rejected, self._logged):
                records.pop(model_id, None)

    def _find(self, model_id: str) -> Version:
        if (reference := self.references.get(model_id)) is None:
            raise ModelReferenceError(f"model '{model_id}' is no longer served.")
        if isinstance(reference, EngineChoice):
            return Version(Path(), reference.identity, reference)
        try:
            found = _version(resolve(reference))
        except ModelReferenceError as error:
            if self.failures.get(model_id) != str(error):
                log.error("Model '%s': %s", model_id, error)
            self.failures[model_id] = str(error)
            raise
        self.failures.pop(model_id, None)
        return found

    def _locate(self, model_id: str, current: Version) -> Version:
        """The version that a local reference leads to now; for a reference to the hub, the current files."""
        choice = self.references[model_id]
        if isinstance(choice, EngineChoice):
            return self._find(model_id)
        reference = Path(choice)
        directory = reference.resolve() if reference.is_absolute() else current.directory
        if directory == current.directory and _identity(directory) == current.identity:
            return current
        return _version(directory)

    def _switch_to(self, model_id: str, version: Version) -> None:
        """Load the version beside every copy in memory, then replace all of them at once.

        An engine is not loaded beside another one, because it may need the port or the memory of that. `Keeper.retire`
        frees outdated engines when their last lease ends.
        """
        before = self._current[model_id]
        if version.engine is not None or before.engine is not None:
            self._current[model_id] = version
            return
        fresh: dict[tuple[Keeper, Copy], LoadedModel] = {}
        try:
            if self.keepers and not self._copies_of(model_id):
                self.keepers[0].host.try_version(model_id, version)
            while not self._replace_copies(model_id, version, fresh):
                for keeper, copy in self._copies_of(model_id):
                    if (keeper, copy) not in fresh:
                        fresh[keeper, copy] = keeper.host.load_version(model_id, version)
        except BaseException:
            self._rejected[model_id] = version.identity
            for model in fresh.values():
                model.close()
            raise
        self._rejected.pop(model_id, None)
        log.info("Model '%s' is now %s (before: %s)", model_id, version.directory, before.directory)

    def _replace_copies(
        self, model_id: str, version: Version, fresh: Mapping[tuple[Keeper, Copy], LoadedModel]
    ) -> bool:
        """Replace every copy by its model in `fresh`. Returns False, and changes nothing, if `fresh` lacks one.

        Raises InUse if a model computes for longer than COMPUTE_TIMEOUT.
        """
        freed: list[Callable[[], object]] = []
        with ExitStack() as turns:
            for _, copy in fresh:
                if not copy.model.predict_lock.acquire(timeout=COMPUTE_TIMEOUT):
                    raise InUse(f"Model '{model_id}' has been computing for {COMPUTE_TIMEOUT:g} s; try again later.")
                turns.callback(copy.model.predict_lock.release)
            with self.switch_lock:
                if not fresh.keys() >= set(self._copies_of(model_id)):
                    return False
                self._current[model_id] = version
                freed = [keeper.replace(copy, model) for (keeper, copy), model in fresh.items()]
        for free in freed:
            free()
        return True

    def _copies_of(self, model_id: str) -> list[tuple[Keeper, Copy]]:
        return [(keeper, copy) for keeper in self.keepers for copy in keeper.copies(model_id)]


def _version(directory: Path) -> Version:
    """The version in the directory. Raises ModelReferenceError if it holds no checkpoint."""
    checkpoint.check(directory)
    if (identity := _identity(directory)) is None:
        raise ModelReferenceError(f"{directory} is being changed; try again when it is complete.")
    return Version(directory, identity)


def _identity(directory: Path) -> str | None:
    """The identity of the files, or None if they are missing or being changed."""
    with suppress(OSError, ModelReferenceError):
        return checkpoint.identity(directory)
    return None


def without_paths(error: BaseException | str, checkpoint: Path) -> str:
    """The first line of an error, without the paths of this machine's folders."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    # The known folders come first: their names may hold a space, at which the pattern would stop.
    folders = (checkpoint, checkpoint.resolve(), *checkpoint.parents, *checkpoint.resolve().parents)
    for folder in folders if checkpoint.is_absolute() else ():  # other references hold no path of this machine
        if folder != folder.parent:
            line = line.replace(str(folder), "…")
    return PATH.sub("…", line)
