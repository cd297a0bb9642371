"""Errors that a user can act on. Everything else that is raised is a bug, and keeps its traceback (`core.stage`)."""


class UserError(Exception):
    """Shown as it is, without a traceback: the message names the file, key or row, what is wrong and what to do."""


class ConfigError(UserError):
    """A setting that is missing, unknown, of the wrong type or out of bounds."""


class DataError(UserError):
    """A missing or invalid file or row."""


class EngineError(UserError):
    """An engine that cannot be started or has died. Completions received so far are in the ledger."""


class SandboxError(UserError):
    """The sandbox is unavailable."""
