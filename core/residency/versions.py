"""Which version of each model this server has: where its reference leads, and what happens when that changes."""

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
from ..errors import InUse, ModelReferenceError
from .redact import without_paths

if TYPE_CHECKING:
    from .copies import Copy
    from .keeper import Keeper
    from .loaded import LoadedModel

log = logging.getLogger("residency")
REVISION = re.compile(r"/snapshots/([0-9a-f]{40})$")  # in the hub's cache
TURN_SECONDS = 60.0  # until a model that computes, or hangs, has kept a new version out


@dataclass
class Version:
    """The files of a checkpoint as they were found: their directory, links followed, and their identity."""

    directory: Path
    identity: str
    sha256: str | None = field(default=None, compare=False)  # until it was read

    @property
    def revision(self) -> str | None:
        """The hub's commit, if they come from there."""
        found = REVISION.search(str(self.directory))
        return found[1] if found else None

    @property
    def name(self) -> str | None:
        """As answers tell it: the beginning of the digest; None until that was read."""
        return self.sha256 and f"sha256:{self.sha256[:16]}"

    def read_digest(self) -> None:
        """Find the digest of all files, which takes seconds for gigabytes that no process has digested before."""
        if self.sha256 is None:
            self.sha256 = checkpoint.known_sha256(self.directory)


class Versions:
    """The current version of each model, the same for all strategies of a server.

    Where a load finds that the reference leads to other files, or that the files have changed, their version is
    loaded beside every copy in memory and takes the place of all of them at one moment; no request fails. Where it
    cannot be loaded, the older version stays. What a reference to the hub leads to is looked up again by hand only.
    """

    def __init__(self, references: Mapping[str, str]) -> None:
        self.references = dict(references)
        self.failures: dict[str, str] = {}
        """Why a model has no version, by its id."""
        self.keepers: list[Keeper] = []
        self.moment = Lock()  # held while a version changes, and while a loaded model joins those in memory
        self._current: dict[str, Version] = {}
        self._refused: dict[str, str] = {}  # the identities of versions that could not be loaded
        self._told: dict[str, str] = {}  # why a version could not be found or loaded
        self._finding: defaultdict[str, RLock] = defaultdict(RLock)  # one for each model

    def find_all(self) -> None:
        """Find the first version of each model; what fails is told, and is the failure of that model alone."""
        for model_id in self.references:
            with suppress(ModelReferenceError):
                self.current(model_id)

    def each(self) -> Iterator[tuple[str, Version]]:
        """Every model that has a version, with it."""
        yield from list(self._current.items())

    def sentence(self, model_id: str, error: BaseException | str) -> str:
        """Of an error of the model what a caller may read."""
        known = self.known(model_id)
        return without_paths(error, known.directory if known else Path(self.references.get(model_id, "")))

    def known(self, model_id: str) -> Version | None:
        """The current version, without looking for it."""
        return self._current.get(model_id)

    def current(self, model_id: str) -> Version:
        """The current version, looked for where there is none yet. Raises ModelReferenceError."""
        with self._finding[model_id]:
            if model_id not in self._current:
                self._current[model_id] = self._find(model_id)
            return self._current[model_id]

    def refresh(self, model_id: str) -> Version:
        """The version to load now; a changed one is brought in first, or told in the log if it cannot be.

        Raises ModelReferenceError for a model that has no version at all.
        """
        with self._finding[model_id]:
            known = self.current(model_id)
            try:
                found = self._look(model_id, known)
                if found != known and self._refused.get(model_id) != found.identity:
                    self._bring_in(model_id, found)
            except Exception as error:
                if self._told.get(model_id) != str(error):  # and not at each load that finds it so
                    log.error("Model '%s' stays as it is: %s", model_id, error)
                self._told[model_id] = str(error)
            else:
                self._told.pop(model_id, None)
            return self._current[model_id]

    def find_anew(self, model_id: str) -> None:
        """Resolve the reference anew, as at the start, and bring in what it leads to. Raises ResidencyError."""
        with self._finding[model_id]:
            found = self._find(model_id)
            if model_id not in self._current:
                self._current[model_id] = found
            elif found != self._current[model_id]:
                self._bring_in(model_id, found)

    def refer(self, model_id: str, reference: str) -> None:
        """Let the reference be the model's, which may be new, and bring in what it leads to.

        Raises ResidencyError; everything is then as before.
        """
        with self._finding[model_id]:
            before = self.references.get(model_id)
            self.references[model_id] = reference
            try:
                self.find_anew(model_id)
            except BaseException:
                if before is None:
                    self.forget(model_id)
                else:
                    self.references[model_id] = before
                    if model_id in self._current:
                        self.failures.pop(model_id, None)
                raise

    def forget(self, model_id: str) -> None:
        """The model is served no more."""
        with self._finding[model_id]:
            for known in (self.references, self.failures, self._current, self._refused, self._told):
                known.pop(model_id, None)

    def _find(self, model_id: str) -> Version:
        if (reference := self.references.get(model_id)) is None:
            raise ModelReferenceError(f"model '{model_id}' is served no more.")
        try:
            found = _version(resolve(reference))
        except ModelReferenceError as error:
            if self.failures.get(model_id) != str(error):
                log.error("Model '%s': %s", model_id, error)
            self.failures[model_id] = str(error)
            raise
        self.failures.pop(model_id, None)
        return found

    def _look(self, model_id: str, known: Version) -> Version:
        """Where a local reference leads now; for any other, the files that are known, which may have changed."""
        reference = Path(self.references[model_id])
        directory = reference.resolve() if reference.is_absolute() else known.directory
        if directory == known.directory and _identity(directory) == known.identity:
            return known
        return _version(directory)

    def _bring_in(self, model_id: str, version: Version) -> None:
        """Load the version beside every copy in memory, then let it take their places at one moment."""
        before = self._current[model_id]
        fresh: dict[tuple[Keeper, Copy], LoadedModel] = {}
        try:
            if self.keepers and not self._held(model_id):
                self.keepers[0].host.try_version(model_id, version)
            while not self._take_places(model_id, version, fresh):
                for keeper, copy in self._held(model_id):
                    if (keeper, copy) not in fresh:
                        fresh[keeper, copy] = keeper.host.load_version(model_id, version)
        except BaseException:
            self._refused[model_id] = version.identity
            for model in fresh.values():
                model.close()
            raise
        self._refused.pop(model_id, None)
        log.info("Model '%s' is now %s (before: %s)", model_id, version.directory, before.directory)

    def _take_places(self, model_id: str, version: Version, fresh: Mapping[tuple[Keeper, Copy], LoadedModel]) -> bool:
        """False where a copy is in memory that `fresh` has no successor for. Raises InUse for one that hangs."""
        freed: list[Callable[[], object]] = []
        with ExitStack() as turns:
            for _, copy in fresh:
                if not copy.model.turn.acquire(timeout=TURN_SECONDS):
                    raise InUse(f"Model '{model_id}' has been computing for {TURN_SECONDS:g} s; try again later.")
                turns.callback(copy.model.turn.release)
            with self.moment:
                if not fresh.keys() >= set(self._held(model_id)):
                    return False
                self._current[model_id] = version
                freed = [keeper.replace(copy, model) for (keeper, copy), model in fresh.items()]
        for free in freed:
            free()
        return True

    def _held(self, model_id: str) -> list[tuple[Keeper, Copy]]:
        return [(keeper, copy) for keeper in self.keepers for copy in keeper.copies(model_id)]


def _version(directory: Path) -> Version:
    """Raises ModelReferenceError for what is no checkpoint."""
    checkpoint.check(directory)
    if (identity := _identity(directory)) is None:
        raise ModelReferenceError(f"{directory} is being changed; try again when it is complete.")
    return Version(directory, identity)


def _identity(directory: Path) -> str | None:
    """None where files come and go meanwhile, or have gone."""
    with suppress(OSError, ModelReferenceError):
        return checkpoint.identity(directory)
    return None
