"""The heavy half of a command: opening a model, and one answer of it with what it cost. Importing this loads MLX."""

import argparse
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.sample_utils import make_logits_processors, make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..config import LazyConfig
from ..engine.model import Model
from ..errors import UsageError
from ..generation import REFUSED, LazyResponse, OnStep, stream_generate
from ..loading.hub import find
from ..loading.load import load
from ..loading.stored import find_stored
from ..progress import OnProgress
from ..ranks.group import Ranks
from ..session.session import Session
from ..stats import LazyStats
from . import options
from .ctrl_c import CtrlC

INTERRUPTED = "interrupted"
TRACING = 4  # tokens whose steps may be of a new shape, and are traced and compiled then


@dataclass(frozen=True)
class Answer:
    """One answer: mlx-lm's figures under its names, and ours. What had no time to become known is None.

    Attributes:
        decode_tps: tokens a second behind the first `TRACING` ones.
        prompt_computed: of a conversation that goes on, how many tokens the question took in each stage.
        peaks: `peak_memory` of each rank, where there are several.
    """

    text: str
    finish_reason: str | None  # "stop", "length", or INTERRUPTED
    prompt_tokens: int
    prompt_tps: float | None
    generation_tokens: int
    generation_tps: float | None
    peak_memory: float  # GB, as mlx-lm counts it
    lazy: LazyStats
    decode_tps: float | None = None
    prompt_computed: tuple[int, ...] | None = None
    peaks: tuple[float, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.finish_reason == INTERRUPTED

    def figures(self) -> dict[str, Any]:
        """mlx-lm's fields, ready for JSON."""
        left_out = {"lazy"} if self.peaks else {"lazy", "peaks"}
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def open_model(args: argparse.Namespace, name: str, lazy: LazyConfig) -> tuple[Model, TokenizerWrapper, bool]:
    """The model and tokenizer that the flags name, and whether it was calibrated.

    Raises:
        UsageError: a flag does not fit the model, or cannot be served by any.
        LazyMLXError: see `load`.
    """
    options.refuse(args, REFUSED)
    folder = find(name)
    given = options.loading(args)
    model, tokenizer = load(str(folder), lazy, **given)
    check_drawing(model, args)
    for token in args.extra_eos_token:
        try:
            tokenizer.add_eos_token(token)
        except ValueError as error:
            raise UsageError(f"--extra-eos-token: {error}") from None
    return model, tokenizer, given["calibration"] is not None or find_stored(folder) is not None


def open_saved(args: argparse.Namespace, name: str) -> Session:
    """The saved document that the flags name, with its model.

    Raises:
        LazyMLXError: see `open_model` and `Session.open`.
    """
    model, tokenizer, _ = open_model(args, name, LazyConfig())
    limits = {"max_memory": args.max_memory, "step_size": options.step_size(args)}
    return Session.open(args.document, model, tokenizer, **limits)


def answer(
    model: Model,
    tokenizer: TokenizerWrapper,
    tokens: list[int],
    lazy: LazyConfig,
    args: argparse.Namespace,
    *,
    emit: Callable[[str], None],
    on_progress: OnProgress,
    on_step: OnStep | None = None,
) -> Answer:
    """Answer a prompt, piece by piece to `emit`. Ctrl-C ends it early, with what there is by then."""
    cache = model.make_cache(lazy)
    _prepare(args)
    responses = stream_generate(
        model,
        tokenizer,
        tokens,
        args.max_tokens,
        prompt_cache=cache,
        prefill_step_size=options.step_size(args),
        max_memory=args.max_memory,
        **drawing(tokenizer, args),
        on_progress=on_progress,
        on_step=on_step,
    )
    return _heard(model.ranks, responses, len(tokens), cache[0].stats, emit)


def ask(
    session: Session,
    question: str,
    args: argparse.Namespace,
    *,
    emit: Callable[[str], None],
    on_progress: OnProgress,
    on_step: OnStep | None = None,
) -> Answer:
    """Answer a question about what a session has read; as `answer` does."""
    _prepare(args)
    given = {**drawing(session.tokenizer, args), "on_step": on_step}
    responses = session.ask(question, args.max_tokens, on_progress=on_progress, **given)
    return _heard(session.model.ranks, responses, 0, lambda ttft_s: session.stats, emit, before=session.stats.computed)


def _prepare(args: argparse.Namespace) -> None:
    if args.seed is not None:
        mx.random.seed(args.seed)
    mx.reset_peak_memory()  # what loading took says nothing about answering


def _heard(
    ranks: Ranks,
    responses: Generator[LazyResponse, None, None],
    tokens: int,
    stats: Callable[[float | None], LazyStats],
    emit: Callable[[str], None],
    before: tuple[int, ...] | None = None,
) -> Answer:
    """Listen to an answer.

    Args:
        tokens: the prompt's length, as long as no response has said it.
        before: of a conversation that goes on, the tokens computed in each stage so far.
    """
    pieces: list[str] = []
    response: LazyResponse | None = None
    reason: str | None = None
    computed, decoding = None, Decoding()
    with CtrlC() as ctrl_c:
        try:
            for response in responses:
                ctrl_c.patient = True
                if before is not None and computed is None:
                    now = response.lazy.computed
                    computed = tuple(after - earlier for after, earlier in zip(now, before, strict=True))
                decoding.note(response.generation_tokens)
                pieces.append(response.text)
                emit(response.text)
                reason = response.finish_reason
                if ctrl_c.wished:
                    reason = INTERRUPTED
                    break
        except KeyboardInterrupt:
            if ranks.size > 1:  # the others are in the middle of something, and wait
                raise
            reason = INTERRUPTED
        responses.close()
    reason = ranks.decided("reason", lambda: reason)
    peaks = ranks.gather("peak", mx.get_peak_memory() / 1e9)
    return Answer(
        text="".join(pieces),
        finish_reason=reason,
        prompt_tokens=response.prompt_tokens if response else tokens,
        prompt_tps=response.prompt_tps if response else None,
        generation_tokens=response.generation_tokens if response else 0,
        generation_tps=response.generation_tps if response else None,
        peak_memory=peaks[ranks.rank],
        lazy=stats(response.ttft_s if response else None),
        decode_tps=decoding.rate,
        prompt_computed=computed,
        peaks=tuple(peaks) if ranks.size > 1 else (),
    )


class Decoding:
    """The rate of an answer's tokens behind those that trace."""

    def __init__(self) -> None:
        self._from = self._to = (0, 0.0)  # tokens, and when they were there

    def note(self, tokens: int) -> None:
        """So many tokens are there."""
        self._to = tokens, time.perf_counter()
        if tokens <= TRACING:
            self._from = self._to

    @property
    def rate(self) -> float | None:
        """Tokens a second; None if the answer was too short to tell."""
        (first, begun), (last, ended) = self._from, self._to
        return (last - first) / (ended - begun) if last > first else None


def check_drawing(model: Model, args: argparse.Namespace) -> None:
    """Refuse a way to draw tokens that this model's vocabulary does not allow.

    Raises:
        UsageError: `--top-k` is no choice among its tokens.
    """
    if args.top_k >= model.vocab_size:
        raise UsageError(f"--top-k: must be below the vocabulary's {model.vocab_size} tokens, got {args.top_k}")


def drawing(tokenizer: TokenizerWrapper, args: argparse.Namespace) -> dict[str, Any]:
    """How the flags want a token to be drawn: options of `stream_generate`."""
    sampler = make_sampler(
        args.temp,
        args.top_p,
        args.min_p,
        args.min_tokens_to_keep,
        top_k=args.top_k,
        xtc_probability=args.xtc_probability,
        xtc_threshold=args.xtc_threshold,
        xtc_special_tokens=tokenizer.encode("\n") + list(tokenizer.eos_token_ids),
    )
    penalties = make_logits_processors(
        repetition_penalty=args.repetition_penalty,
        repetition_context_size=args.repetition_context_size,
        presence_penalty=args.presence_penalty,
        presence_context_size=args.presence_context_size,
        frequency_penalty=args.frequency_penalty,
        frequency_context_size=args.frequency_context_size,
    )
    return {"sampler": sampler, "logits_processors": penalties}
