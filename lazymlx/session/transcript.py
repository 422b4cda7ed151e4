"""`Transcript`: what was said, and the tokens that say it.

It knows messages and the model's chat template, and nothing of caches. A document belongs to the question that is
asked about it: both are one message of the user.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..documents import read_document
from ..errors import PromptError
from ..messages import BREAK, about
from ..templates import encodable, rendered

Message = dict[str, str]  # role and content


@dataclass(frozen=True)
class Transcript:
    """A conversation so far. Adding to it makes another one, so that an older one is there to go back to.

    Attributes:
        messages: with what is answered, in the form of chat templates.
        documents: what was read since the newest question.
        has_documents: whether anything was read; questions are then marked as such, the later ones too.
    """

    messages: tuple[Message, ...] = ()
    documents: str = ""
    has_documents: bool = False

    @classmethod
    def of(cls, system: str | None) -> "Transcript":
        return cls(({"role": "system", "content": system},) if system else ())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transcript":
        """What `to_dict` gave.

        Raises:
            ValueError: it gave something else.
        """
        messages, documents, has_documents = values["messages"], values["documents"], values["has_documents"]
        if not isinstance(documents, str) or type(has_documents) is not bool or not isinstance(messages, list):
            raise ValueError("a transcript has messages, documents, and whether there are any")
        for message in messages:
            parts = message["role"], message["content"]
            if len(message) != len(parts) or not all(isinstance(part, str) for part in parts):
                raise ValueError("a message of a transcript has a role and a content")
        return cls(tuple(messages), documents, has_documents)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def with_document(self, text: str) -> "Transcript":
        """A document was read; several are one text."""
        if not text.strip():
            raise PromptError("document: it is empty; there is nothing to read")
        documents = self.documents + BREAK + text if self.documents else text
        return replace(self, documents=documents, has_documents=True)

    def with_question(self, question: str) -> "Transcript":
        """A question was asked, about the documents read since the one before."""
        if not question.strip():
            raise PromptError("question: it is empty; ask something")
        content = about(self.documents, question) if self.has_documents else question
        return replace(self, messages=(*self.messages, _by_user(content)), documents="")

    def with_answer(self, answer: str) -> "Transcript":
        return replace(self, messages=(*self.messages, {"role": "assistant", "content": answer}))

    def tokens(self, tokenizer: TokenizerWrapper) -> list[int]:
        """The prompt that asks the newest question.

        Raises:
            PromptError: the chat template refuses such a conversation, for example a system prompt, or fails.
        """
        if not tokenizer.has_chat_template:
            text = encodable("".join(message["content"] + BREAK for message in self.messages))
            return tokenizer.encode(text, verbose=False)  # what it says of long texts is true of other models
        text = rendered(tokenizer, self.messages, add_generation_prompt=True)
        return tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def certain_tokens(self, tokenizer: TokenizerWrapper) -> list[int]:
        """What every prompt begins with whatever is read or asked next; a tokenizer may merge across that seam."""
        asked, read_on = (
            replace(self, messages=(*self.messages, _by_user(self.documents + BREAK + text))).tokens(tokenizer)
            for text in ("Question: one", "2nd")
        )
        return asked[: common_prefix(asked, read_on)]


def _by_user(content: str) -> Message:
    return {"role": "user", "content": content}


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two runs begin with in common."""
    differs = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differs, min(len(one), len(other)))


def spelled(tokenizer: TokenizerWrapper, tokens: Sequence[int]) -> str:
    """The text of an answer, to its last letter: of one that was cut short, responses hold back what is uncertain."""
    detokenizer = tokenizer.detokenizer
    for token in tokens:
        if token not in tokenizer.eos_token_ids:
            detokenizer.add_token(token)
    detokenizer.finalize()
    return detokenizer.text


def text_of(text_or_path: str | os.PathLike) -> str:
    """A document's text; a file is meant only by a path, never by a text that looks like one."""
    if isinstance(text_or_path, str):
        if os.path.isfile(text_or_path):
            raise PromptError(f"document: {text_or_path!r} is a text that names a file; to read that, pass a Path")
        return text_or_path
    return read_document(text_or_path)
