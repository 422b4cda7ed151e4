"""The check of types and shapes that tests run with."""

from collections.abc import Callable

from beartype import beartype


def checked(function: Callable) -> Callable:
    """A function within a function is left as it is: it would be prepared anew in each call."""
    return function if "<locals>" in function.__qualname__ else beartype(function)
