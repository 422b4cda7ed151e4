"""However a prompt is cut into chunks, and whichever loop feeds it, the same tokens are computed and answered.

mlx-lm's loop sends all but the last token in chunks, then the last one alone: 2,050 tokens arrive as 2048, 1, 1. A
cache to which the prompt's length was announced waits for the last one, as in `lazymlx.stream_generate`. Another one
takes the first of the two lone tokens for the prompt's end, and the other for an answer's.
"""

import mlx_lm
import pytest
from mlx_lm.utils import load_tokenizer
from reference import Positions
from tiny import (
    Performance,
    Rehearsal,
    clear_rehearsal,
    computed_sets,
    random_tokens,
    rehearse,
    stock_model,
    tiny_args,
    twin_of,
)

import lazymlx
from lazymlx.config import LazyConfig
from lazymlx.demo import MODEL
from lazymlx.engine.model import Model

pytestmark = pytest.mark.unchecked

CUTS = ((1, 0.5), (2, 0.2))
SETTINGS = {"window": 4, "pool": 3, "links": 2, "sink": 2, "recent": 3, "revive": 2, "min_tokens": 0, "round_to": 8}
MODES = {"paper": LazyConfig.paper(CUTS), "default": LazyConfig(CUTS, **SETTINGS)}
KEEP_ALL = LazyConfig(((1, 1.0), (2, 1.0)), min_tokens=0)
SMALLER = {"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}  # long prompts cost the oracle
ANSWER = 6


def rehearsed(mode: str, *script: tuple[str, int]) -> Rehearsal:
    return clear_rehearsal(MODES[mode], script, **SMALLER)


def conversation(mode: str) -> Rehearsal:
    return rehearsed(mode, ("prompt", 150), ("decode", 6), ("prompt", 70), ("decode", 4))


@pytest.mark.parametrize("chunk", [1, 7, 64, 2048])
@pytest.mark.parametrize("mode", MODES)
def test_chunks_change_nothing(mode, chunk):
    Performance(conversation(mode), chunk=chunk).play()


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_bound_the_rows_of_every_stage(chunk):
    """No call takes more than `chunk` rows, in any stage; the last chunk is joined by the last token in stage 0."""
    moment = conversation("default").moments[0]
    engine = Performance(conversation("default"), chunk=chunk)
    engine.step(moment.kind, moment.tokens)
    calls = engine.notes.take()
    assert max(len(call.rows) for call in calls if call.layer == 0) <= chunk + 1
    assert max(len(call.rows) for call in calls if call.layer > 0) <= chunk


@pytest.mark.parametrize("mode", MODES)
def test_a_length_need_not_be_announced_where_chunks_are_longer_than_one(mode):
    Performance(conversation(mode), announced=False).play()


# --- through mlx-lm's loop --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    """A real one, to which no token ends an answer."""
    tokenizer = load_tokenizer(MODEL)
    tokenizer.eos_token_ids = set()
    return tokenizer


def answer(stream, model: Model, config: LazyConfig, prompt, tokenizer, **options):
    """The tokens that a `stream_generate` answers with, and the positions computed in each stage."""
    cache = model.make_cache(config)
    responses = stream(model, tokenizer, prompt, ANSWER, prompt_cache=cache, **options)
    return [response.token for response in responses], computed_sets(cache[0])


def answer_like(rehearsal: Rehearsal, stream, tokenizer, **options):
    prompt = [t for moment in rehearsal.moments[:-ANSWER] for t in moment.tokens]
    return answer(stream, twin_of(rehearsal.stock), rehearsal.config, prompt, tokenizer, **options)


def rehearsed_answer(rehearsal: Rehearsal) -> tuple[list[int], tuple[Positions, ...]]:
    return [t for moment in rehearsal.moments[-ANSWER:] for t in moment.tokens], rehearsal.moments[-1].computed


@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 66])
@pytest.mark.parametrize("mode", MODES)
def test_an_announced_prompt_computes_the_oracles_sets(mode, length, tokenizer):
    """Lengths about the chunk's: 66 tokens in chunks of 64 arrive as 64, 1, 1."""
    rehearsal = rehearsed(mode, ("prompt", length), ("decode", ANSWER))
    found = answer_like(rehearsal, lazymlx.stream_generate, tokenizer, prefill_step_size=64)
    assert found == rehearsed_answer(rehearsal)


@pytest.mark.parametrize("length, seed", [(2049, 0), (2050, 11)])
def test_an_announced_prompt_computes_the_oracles_sets_at_the_default_chunk(length, seed, tokenizer):
    """Seeds without a near tie, which are rare among so many scores."""
    rehearsal = rehearse(MODES["default"], (("prompt", length), ("decode", ANSWER)), seed, **SMALLER)
    assert rehearsal.clear
    found = answer_like(rehearsal, lazymlx.stream_generate, tokenizer)
    assert found == rehearsed_answer(rehearsal)


@pytest.mark.parametrize("length", [3, 64, 65])
@pytest.mark.parametrize("mode", MODES)
def test_mlx_lms_own_loop_computes_the_same_sets(mode, length, tokenizer):
    rehearsal = rehearsed(mode, ("prompt", length), ("decode", ANSWER))
    found = answer_like(rehearsal, mlx_lm.stream_generate, tokenizer, prefill_step_size=64)
    assert found == rehearsed_answer(rehearsal)


@pytest.mark.parametrize("length", [2, 66])
@pytest.mark.parametrize("mode", MODES)
def test_to_mlx_lms_own_loop_a_second_lone_token_is_an_answers(mode, length, tokenizer):
    """Selection comes one token early, as the oracle's does when the prompt's last token is a decode step to it."""
    rehearsal = rehearsed(mode, ("prompt", length - 1), ("decode", 1), ("decode", ANSWER))
    found = answer_like(rehearsal, mlx_lm.stream_generate, tokenizer, prefill_step_size=64)
    assert found == rehearsed_answer(rehearsal)


@pytest.mark.parametrize("length", [1, 2, 3, 2049, 2050])
def test_with_everything_kept_any_loop_answers_as_the_stock_model_does(length, tokenizer):
    stock, prompt = stock_model(tiny_args(**SMALLER)), random_tokens(length)
    expected = [r.token for r in mlx_lm.stream_generate(stock, tokenizer, prompt, ANSWER)]
    for stream in (lazymlx.stream_generate, mlx_lm.stream_generate):
        tokens, sets = answer(stream, twin_of(stock), KEEP_ALL, prompt, tokenizer)
        assert tokens == expected
        assert all(positions == set(range(length + ANSWER)) for positions in sets)
