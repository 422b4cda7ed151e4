"""`RequestEncoder`: a request becomes tokens, or is refused, before it waits for its turn."""

from dataclasses import dataclass, replace

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..errors import PromptError
from ..messages import BREAK
from ..session.transcript import common_prefix
from ..templates import encodable, rendered
from .request import Chat, ChatMessage, Refusal, Request

SETTING = ("system",)  # roles of messages that say how to answer, and nothing to answer


@dataclass(frozen=True)
class EncodedRequest:
    """A prompt's tokens.

    Attributes:
        head: how many of the first ones are system messages and tools.
        most: tokens that the answer may have.
    """

    tokens: list[int]
    head: int
    most: int


class RequestEncoder:
    """Knows the model's tokenizer and its limits.

    Args:
        positions: that the model has; None: no limit.
        most_tokens: of an answer.
    """

    def __init__(self, tokenizer: TokenizerWrapper, positions: int | None, most_tokens: int):
        self._tokenizer, self._positions, self._most_tokens = tokenizer, positions, most_tokens
        self._longest = max(map(len, tokenizer.get_vocab()))  # letters of a token, at most

    def encode(self, request: Request) -> EncodedRequest:
        """The tokens of a prompt.

        Raises:
            Refusal: the chat template refuses it, or it is longer than the model's positions.
        """
        prompt = request.prompt
        tokens = self.chat(prompt) if isinstance(prompt, Chat) else self._plain(prompt)
        if not tokens:
            raise Refusal(400, "prompt: expected at least one token, got none")
        room = self._most_tokens if self._positions is None else self._positions - len(tokens)
        if room < 1:
            raise self._too_long(str(len(tokens)))
        head = self._head(prompt, tokens) if isinstance(prompt, Chat) else 0
        return EncodedRequest(tokens, head, min(request.max_tokens or self._most_tokens, self._most_tokens, room))

    def chat(self, chat: Chat) -> list[int]:
        """The tokens of a conversation; if its last message is the assistant's, of one to be gone on with."""
        if chat.tools and not self._tokenizer.has_tool_calling:
            raise Refusal(400, "tools: this model's chat template knows none; leave them out")
        if not self._tokenizer.has_chat_template:
            return self._plain("".join(message["content"] + BREAK for message in chat.messages))
        unfinished = chat.messages[-1]["role"] == "assistant" and not chat.messages[-1].get("tool_calls")
        options = {"add_generation_prompt": not unfinished, "continue_final_message": unfinished, **dict(chat.options)}
        try:
            text = rendered(self._tokenizer, chat.messages, tools=list(chat.tools) or None, **options)
        except PromptError as error:
            raise Refusal(400, f"messages: {error}") from None
        return self._encoded(text, add_special_tokens=False)

    def _plain(self, prompt: str | tuple[int, ...]) -> list[int]:
        if isinstance(prompt, str):
            return self._encoded(prompt)
        size = len(self._tokenizer)
        if not 0 <= min(prompt) <= max(prompt) < size:
            found = f"{min(prompt)} to {max(prompt)}"
            raise Refusal(400, f"prompt: expected tokens from 0 to {size - 1}, got some from {found}")
        return list(prompt)

    def _encoded(self, text: str, **options: bool) -> list[int]:
        try:
            text = encodable(text)
        except PromptError as error:
            raise Refusal(400, str(error)) from None
        least = len(text) // self._longest
        if self._positions is not None and least >= self._positions:  # tokenising it would take long
            raise self._too_long(f"more than {least}")
        return self._tokenizer.encode(text, verbose=False, **options)

    def _too_long(self, found: str) -> Refusal:
        return Refusal(400, f"prompt: {found} tokens, but the model has {self._positions} positions; send fewer")

    def _head(self, chat: Chat, tokens: list[int]) -> int:
        """What the prompt has in common with another one of the same system messages and tools."""
        setting = list[ChatMessage]()
        for message in chat.messages:
            if message["role"] not in SETTING:
                break
            setting.append(message)
        if not setting and not chat.tools:
            return 0
        try:
            other = self.chat(replace(chat, messages=(*setting, {"role": "user", "content": "?"})))
        except Refusal:
            return 0
        return common_prefix(tokens, other)
