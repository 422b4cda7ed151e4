"""Every error that lazymlx raises on purpose.

    LazyMLXError
    ├── UsageError (ValueError)    the caller asked for something that makes no sense      exit code 2
    │   ├── ConfigError            a lazy configuration or a schedule is invalid
    │   ├── PromptError            a prompt is empty, unreadable or not text
    │   ├── ModelError             a model cannot be found, read or served lazily
    │   ├── MapsError              maps cannot be fitted or read, or belong to another model
    │   ├── DocumentError          a saved document cannot be read, or belongs to another model
    │   └── TooLargeError          a prompt would need more memory than it may have
    └── RunError (RuntimeError)    the input was fine, but the run failed                  exit code 1
        ├── StateError             a cache or a session is used in a way that its state does not allow
        └── Cancelled              the caller stopped the run

The command line catches `LazyMLXError` alone and prints its message as one line; any other exception is a
bug and keeps its traceback.
"""


class LazyMLXError(Exception):
    """Base of the tree. `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(LazyMLXError, ValueError):
    """The caller can mend it by asking differently."""

    exit_code = 2


class ConfigError(UsageError):
    """A lazy configuration or a schedule is invalid."""


class PromptError(UsageError):
    """A prompt is empty, unreadable or not text."""


class ModelError(UsageError):
    """A model cannot be found, read or served lazily."""


class MapsError(UsageError):
    """Maps cannot be fitted or read, or belong to another model."""


class DocumentError(UsageError):
    """A saved document cannot be read, or belongs to another model."""


class TooLargeError(UsageError):
    """A prompt would need more memory than it may have."""


class RunError(LazyMLXError, RuntimeError):
    """The request made sense, but it could not be carried out."""


class StateError(RunError):
    """A cache or a session is used in a way that its state does not allow."""


class Cancelled(RunError):
    """The caller stopped the run."""
