"""One class per failure. The message is a sentence for the user, with a remedy where there is one."""

from __future__ import annotations


class ResidencyError(Exception):
    """The base class of all errors of Residency. Print the sentence, not the traceback."""


class FileError(ResidencyError):
    """A file or a path that a user named cannot be used."""


class YamlError(ResidencyError):
    """A YAML file is unreadable or breaks the schema. The sentence names file, line, column and key."""


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
    """A model reference leads to no usable checkpoint."""


class UnknownModel(ResidencyError):
    """A request names a model id that this server does not have."""


class ModelNotNamed(ResidencyError):
    """A request names no model, and the server has several and no default."""


class UnknownStrategy(ResidencyError):
    """A request names a strategy that this server has not mounted."""


class TooManyTexts(ResidencyError):
    """A request holds more texts than the server accepts."""


class TextTooLong(ResidencyError):
    """A request holds a text over the length limit of this server."""


class NoTokens(ResidencyError):
    """A text has no tokens, so its model cannot compute anything for it."""


class CannotDo(ResidencyError):
    """A model does not have the task that a request asks for. `model_id` is "" if the model is unknown."""

    def __init__(self, sentence: str, model_id: str = "") -> None:
        super().__init__(sentence)
        self.model_id = model_id


class UnknownToken(ResidencyError):
    """A text holds a token for which its model has no embedding."""


class NoFiniteScore(ResidencyError):
    """A model computed a score that is infinite or not a number."""


class InvalidTensor(ResidencyError):
    """The shape, the data and the parameters of a tensor do not agree."""


class InvalidTimeout(ResidencyError):
    """The timeout that a request gives is not a positive number of seconds."""


class Overloaded(ResidencyError):
    """No queue slot is free. `seconds` says when to try again."""

    def __init__(self, sentence: str, seconds: int = 1) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class DeadlineExceeded(ResidencyError):
    """A request had not begun at its deadline. Nothing was computed for it."""


class CannotLoadManually(ResidencyError):
    """A model cannot be loaded or unloaded manually, because its strategy loads one for each request."""


class InUse(ResidencyError):
    """A model cannot be freed, because it is in use or pinned."""


class CannotUpdate(ResidencyError):
    """New settings cannot be used without a restart, or a strategy refuses them."""


class NotReady(ResidencyError):
    """The server has not finished its start-up loads."""


class LoadFailed(ResidencyError):
    """A checkpoint could not be loaded. The message holds no path.

    `transient`: the checkpoint is not the cause, so another try may succeed at once.
    """

    def __init__(self, sentence: str, *, transient: bool = False) -> None:
        super().__init__(sentence)
        self.transient = transient


class ModelCrashed(ResidencyError):
    """The process of a model has ended or hangs. Its requests in flight fail; the next one gets a new process."""


class ModelGone(ModelCrashed):
    """The process of a model had ended before the request reached it, so the request can be computed by a new one."""


class EngineFailed(ResidencyError):
    """An engine could not be started, or was not ready in time.

    The message is for the log: it may hold parts of the command, of its environment and of what it has written.
    """

    def __init__(self, sentence: str, for_callers: str = "") -> None:
        """`for_callers` says it without those."""
        super().__init__(sentence)
        self.for_callers = for_callers or sentence


class ForwardFailed(ResidencyError):
    """An engine that runs accepts no connection, or closes it before it has answered."""


class StartupFailed(ResidencyError):
    """A strategy or a model could not be started with the server."""


class BalancerFailed(ResidencyError):
    """HAProxy is missing, cannot start, does not answer on its admin socket, or refuses a command."""


class NodeFailed(ResidencyError):
    """A node of a cluster could not be started, or does not answer."""


class NodeRefused(ResidencyError):
    """A node of a cluster answers with an error, such as that it cannot use changed settings without a restart."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class TrialFailed(ResidencyError):
    """One trial of an experiment could not be measured; the other trials go on."""


class ResultsError(ResidencyError):
    """A folder of results is missing, incomplete, or was not written by Residency."""
