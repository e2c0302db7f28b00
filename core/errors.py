"""One class per failure. The message is a sentence for the user, with a remedy where there is one."""

from __future__ import annotations


class ResidencyError(Exception):
    """Base of everything that Residency refuses or fails at; print it, not its traceback."""


class FileError(ResidencyError):
    """A file or a path that a user named cannot be used."""


class YamlError(ResidencyError):
    """A YAML file is unreadable or breaks the schema; names file, line, column and key."""


class SettingsError(ResidencyError):
    """The served app's settings (environment or YAML) are wrong."""


class PluginError(ResidencyError):
    """A plugin cannot be used, or two plugins claim one name."""


class OptionError(ResidencyError):
    """A strategy or a loader was given an option that it does not take."""

    def __init__(self, sentence: str, option: str) -> None:
        super().__init__(sentence)
        self.option = option


class ModelReferenceError(ResidencyError):
    """A model reference does not lead to a usable checkpoint."""


class UnknownModel(ResidencyError):
    """A request names a model id that this server does not have."""


class ModelNotNamed(ResidencyError):
    """A request names no model, and the server has several and no default."""


class UnknownStrategy(ResidencyError):
    """A request names a strategy that this server has not mounted."""


class TooManyTexts(ResidencyError):
    """A request holds more texts than the server takes at a time."""


class TextTooLong(ResidencyError):
    """A request holds a text over the limit of this server."""


class NoTokens(ResidencyError):
    """A text gives no tokens, and its model has nothing to compute for it."""


class UnknownToken(ResidencyError):
    """A text holds a token for which its model has no embedding."""


class NoFiniteScore(ResidencyError):
    """A model computed a score that is infinite or not a number."""


class WrongTensor(ResidencyError):
    """A tensor's shape, its data and what is said of them do not fit together."""


class WrongTimeout(ResidencyError):
    """A request's own deadline is no number of seconds."""


class Overloaded(ResidencyError):
    """There is no place for one more request; `seconds` says when there will be one."""

    def __init__(self, sentence: str, seconds: int = 1) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class DeadlinePassed(ResidencyError):
    """A request waited until its time was up; nothing was computed for it."""


class CannotSteer(ResidencyError):
    """A strategy that decides alone was told to load or free a model."""


class InUse(ResidencyError):
    """A model cannot be freed while it is lent out, or because it is pinned."""


class CannotUpdate(ResidencyError):
    """A change of models or options that a running server cannot take over, or a strategy does not."""


class NotReady(ResidencyError):
    """The server has not finished its start-up loads."""


class LoadFailed(ResidencyError):
    """A checkpoint could not become a model. The message holds no path.

    `transient` says that the checkpoint is not to blame, so that the next try may succeed at once.
    """

    def __init__(self, sentence: str, *, transient: bool = False) -> None:
        super().__init__(sentence)
        self.transient = transient


class ModelCrashed(ResidencyError):
    """A model's process ended or hung; its requests in flight fail, and the next one gets a new process."""


class ModelGone(ModelCrashed):
    """A model's process had ended before it was asked: nobody's request has failed, and another model can answer it."""


class StartupFailed(ResidencyError):
    """A strategy or a model reference refused while the server started."""


class TrialFailed(ResidencyError):
    """One trial of an experiment could not be measured; the other trials go on."""


class ResultsError(ResidencyError):
    """A folder of results is missing, incomplete or not ours."""
