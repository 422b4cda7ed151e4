"""From messages to token ids and back to lengths: the chat template, follow-ups, and counts of words' tokens."""

from collections.abc import Sequence
from typing import NamedTuple

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..errors import UsageError
from ..prefill import encode, template_tail

ANSWER = "\N{SECTION SIGN}answer\N{SECTION SIGN}"  # stands for an answer while a follow-up is rendered
ASK = "\n\nAnswer:"  # what makes a model without a chat template answer


class Encoded(NamedTuple):
    """Token ids, and how many of the last ones are the chat template's own."""

    tokens: list[int]
    tail: int = 0


class Encoder:
    """A tokenizer with its chat template, if it has one.

    Counts of words are remembered, since words recur, and so is the newest prompt, which is measured and then run.
    """

    def __init__(self, tokenizer: TokenizerWrapper):
        self.tokenizer = tokenizer
        self._counts: dict[str, int] = {}
        self._newest: tuple[str, list[int]] = ("", [])
        self._tail = template_tail(tokenizer, self._chat("x")) if tokenizer.has_chat_template else 0
        self.cue = "" if tokenizer.has_chat_template else ASK
        self.overhead = len(self.prompt(f"x{self.cue}").tokens) - self.count("x")

    def count(self, text: str) -> int:
        """Tokens of a text inside of a longer one."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def word(self, word: str) -> int:
        """Tokens of a word after a space."""
        if word not in self._counts:
            self._counts[word] = self.count(f" {word}")
        return self._counts[word]

    def words(self, text: str) -> int:
        """Tokens of words after spaces: their sum, since tokens do not reach across words."""
        return sum(map(self.word, text.split()))

    def prompt(self, message: str, *, chat: bool = True, most: int | None = None) -> Encoded:
        """A user's first message; `chat=False` leaves it bare. Of more than `most` tokens the middle goes."""
        if not (chat and self.tokenizer.has_chat_template):
            return Encoded(middle_out(encode(self.tokenizer, message), most))
        return Encoded(middle_out(self._chat(message), most), self._tail)

    def follow_up(self, message: str) -> Encoded:
        """A later message, from the end of the answer before it: what closes that answer comes first."""
        if not self.tokenizer.has_chat_template:
            return Encoded(self.tokenizer.encode(f"\n\n{message}{ASK}", add_special_tokens=False))
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": ANSWER}]
        turns.append({"role": "user", "content": message})
        text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        _, found, rest = text.partition(ANSWER)
        if not found:
            raise UsageError("model: its chat template cannot render a second question; leave out the task followup")
        return Encoded(self.tokenizer.encode(rest, add_special_tokens=False), self._tail)

    def _chat(self, message: str) -> list[int]:
        if message != self._newest[0]:
            turns = [{"role": "user", "content": message}]
            tokens = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True)
            self._newest = (message, list(tokens))
        return self._newest[1]

    def text(self, tokens: Sequence[int]) -> str:
        """An answer's text."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)


def middle_out(tokens: list[int], most: int | None) -> list[int]:
    """At most `most` tokens: the first and the last half of them, as LongBench's own script shortens prompts."""
    if most is None or len(tokens) <= most:
        return tokens
    return tokens[: most // 2] + tokens[len(tokens) - (most - most // 2) :]
