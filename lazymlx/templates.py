"""A chat template, rendered. It is a program that came with the model, and may fail in any way that programs do."""

from collections.abc import Sequence
from typing import Any

from .errors import PromptError


def rendered(tokenizer: Any, messages: Sequence[dict[str, Any]], **options: Any) -> str:
    """The text that a tokenizer's chat template makes of messages.

    Args:
        options: of `apply_chat_template`; what it does not know is for the template.

    Raises:
        PromptError: the template refuses such a conversation, for example a system prompt, or fails, or gives no text.
    """
    from jinja2 import TemplateError  # only now: commands that render nothing start faster

    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    except TemplateError as error:
        raise PromptError(f"chat template: it refuses this conversation: {error}") from error
    except Exception as error:
        raise PromptError(f"chat template: it failed: {type(error).__name__}: {error}") from error
    return encodable(text)


def encodable(text: str) -> str:
    """The text, if a tokenizer can take it.

    Raises:
        PromptError: a half of a surrogate pair is in it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"prompt: expected text, got half a surrogate pair at character {error.start}; decode it as UTF-8 first"
        ) from None
    return text
