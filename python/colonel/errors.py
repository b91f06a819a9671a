"""What can go wrong, each with a text that stands alone."""


class ColonelError(Exception):
    """Base of colonel's errors."""


class NoSessionError(ColonelError):
    """This process does not run under `colonel run`."""


class NoWorkerError(ColonelError):
    """No process of the engine is captured."""


class SessionNotFoundError(ColonelError):
    """There is no such session."""


class SessionReadError(ColonelError):
    """A session, or a table of it, can't be read."""


class CaptureWarning(UserWarning):
    """Something was not captured; the program runs on."""
