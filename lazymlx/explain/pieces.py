"""The text of every token, where one can be told: of some characters a token is only a part.

Decoding token by token would tear those, and put or drop spaces where a tokenizer looks at neighbours. So a run of
tokens is divided only where both sides' texts make up the whole's: whatever a tokenizer does, nothing is lost.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from mlx_lm.tokenizer_utils import TokenizerWrapper

PLACES = 64  # to try to divide a run at; a character's bytes are at most 4 tokens, so the first few are enough


class TextPiece(NamedTuple):
    """The text of the tokens at `start` .. `stop - 1`: normally one."""

    start: int
    stop: int
    text: str


def pieces(tokenizer: TokenizerWrapper, tokens: Sequence[int]) -> list[TextPiece]:
    """Divide the text of these tokens among them; joined, the pieces are `tokenizer.decode(tokens)`."""
    if not tokens:
        return []
    texts = _Texts(tokenizer, tokens)
    return list(_divided(texts, 0, len(tokens), texts.of(0, len(tokens))))


class _Texts:
    """The texts of runs of tokens, as they are in the middle of a text."""

    def __init__(self, tokenizer: TokenizerWrapper, tokens: Sequence[int]):
        self.tokenizer, self.tokens = tokenizer, list(tokens)
        self.anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]  # stands for what is before a run
        self.anchor_text = tokenizer.decode(self.anchor)
        self.single = {token: self._behind_anchor([token]) for token in set(self.tokens)}

    def of(self, start: int, stop: int) -> str:
        run = self.tokens[start:stop]
        return self._behind_anchor(run) if start else self.tokenizer.decode(run)

    def _behind_anchor(self, run: list[int]) -> str:
        return self.tokenizer.decode(self.anchor + run).removeprefix(self.anchor_text)


def _divided(texts: _Texts, start: int, stop: int, text: str) -> Iterator[TextPiece]:
    singles = [texts.single[token] for token in texts.tokens[start:stop]]
    if stop - start == 1 or "".join(singles) == text:
        singles = singles if stop - start > 1 else [text]
        yield from (TextPiece(n, n + 1, single) for n, single in enumerate(singles, start))
        return
    for middle in islice(_from_the_middle(start, stop), PLACES):
        left, right = texts.of(start, middle), texts.of(middle, stop)
        if left + right == text:
            yield from _divided(texts, start, middle, left)
            yield from _divided(texts, middle, stop, right)
            return
    yield TextPiece(start, stop, text)


def _from_the_middle(start: int, stop: int) -> Iterator[int]:
    return iter(sorted(range(start + 1, stop), key=lambda place: abs(2 * place - start - stop)))
