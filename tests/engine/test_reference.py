"""The oracle by itself, before anything is measured against it.

Its arithmetic is checked against mlx-lm's Llama, its bookkeeping by properties. The strongest test needs no
LazyLLM at all: whatever was pruned and revived, a conversation is one masked forward of the dense model.
"""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from reference import ReferenceLazyLLM, Shape, Step, dense_logits, kept_count

VOCAB = 40
SHAPE = Shape(layers=4, heads=4, kv_heads=2, head_dim=8)
PROMPT = [int(t) for t in np.random.default_rng(0).integers(VOCAB, size=20)]
QUESTION = [int(t) for t in np.random.default_rng(1).integers(VOCAB, size=5)]
CUTS = ((1, 0.5), (3, 0.2))

# The default mode, scaled down to a prompt of 20 tokens.
DEFAULT = {"window": 3, "pool": 3, "sink": 1, "recent": 2, "attend": "computed", "revive": 2, "round_to": 4}


@cache
def llama(kv_heads: int = 2, tied: bool = False, bias: bool = False) -> tuple[Model, dict[str, np.ndarray]]:
    """mlx-lm's model with random weights, large enough for peaked attention, and the same as NumPy."""
    args = ModelArgs(
        model_type="llama",
        hidden_size=32,
        num_hidden_layers=SHAPE.layers,
        intermediate_size=48,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=kv_heads,
        head_dim=SHAPE.head_dim,
        rms_norm_eps=SHAPE.rms_eps,
        vocab_size=VOCAB,
        tie_word_embeddings=tied,
        attention_bias=bias,
        mlp_bias=bias,
    )
    model, rng = Model(args), np.random.default_rng(2)
    weights = {
        name: rng.normal(1.0 if "norm" in name else 0.0, 0.3, size=np.shape(w)).astype(np.float32)
        for name, w in sorted(tree_flatten(model.parameters()))
    }
    model.load_weights([(name, mx.array(w)) for name, w in weights.items()])
    return model, weights


def lazy(cuts=CUTS, **settings) -> ReferenceLazyLLM:
    return ReferenceLazyLLM(llama()[1], SHAPE, cuts, **settings)


def converse(model: ReferenceLazyLLM, turns: int = 2, answer: int = 4) -> tuple[list[int], list[Step]]:
    """A prompt and follow-ups, each with a greedy answer; all tokens that were fed, and all steps."""
    tokens, steps = [], []
    for turn in range(turns):
        prompt = QUESTION if turn else PROMPT
        steps.append(model.step(prompt))
        tokens += prompt
        for _ in range(answer):
            tokens.append(int(steps[-1].logits.argmax()))
            steps.append(model.step(tokens[-1:], decode=True))
    return tokens, steps


# --- against the dense model ----------------------------------------------------------------------


@pytest.mark.parametrize("kv_heads, tied, bias", [(2, False, False), (1, True, False), (4, False, True)])
def test_dense_logits_agree_with_mlx_lm(kv_heads, tied, bias):
    model, weights = llama(kv_heads, tied, bias)
    shape = Shape(SHAPE.layers, SHAPE.heads, kv_heads, SHAPE.head_dim)
    expected = np.array(model(mx.array([PROMPT]))[0])
    np.testing.assert_allclose(dense_logits(weights, shape, PROMPT), expected, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, DEFAULT], ids=["paper", "default"])
@pytest.mark.parametrize("cuts", [(), ((1, 1.0), (3, 1.0))], ids=["no cut", "keep 1.0"])
def test_keeping_everything_is_the_dense_model(cuts, settings):
    """Prompt, answer, follow-up, answer: each step's logits equal the dense model's at its last token."""
    tokens, steps = converse(lazy(cuts, **settings))
    dense = dense_logits(llama()[1], SHAPE, tokens)
    ends = np.cumsum([len(step.computed_now[0]) for step in steps]) - 1
    np.testing.assert_allclose([step.logits for step in steps], dense[ends], atol=1e-10)


def masked_forward(tokens: list[int], masks: list[np.ndarray]) -> np.ndarray:
    """mlx-lm's own blocks over all tokens at once, one (L, L) mask a layer."""
    model = llama()[0].model
    x = model.embed_tokens(mx.array([tokens]))
    for block, mask in zip(model.layers, masks, strict=True):
        x = block(x, mx.array(mask), cache=None)
    return np.array(llama()[0].lm_head(model.norm(x)))[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"revive": 2},
        {"revive": 0},
        {"revive": 0, "attend": "computed"},
        {"attend": "computed", "reduce": "max"},
        DEFAULT,
    ],
    ids=str,
)
def test_a_pruned_conversation_is_one_masked_dense_forward(settings):
    """A row is computed once, so what it saw is one row of a mask; rows never computed are seen by nobody."""
    reference = lazy(**settings)
    tokens, steps = converse(reference)
    assert any(step.revived[0] for step in steps[1:]) == (settings.get("revive") != 0)

    masks = []
    for j, stage in enumerate([range(1), range(1, 3), range(3, 4)]):
        mask, computed = np.eye(len(tokens), dtype=bool), set()
        for step in steps:
            computed |= step.computed_now[j]
            visible = step.active[j] if reference.attend == "selected" else computed
            for p in step.computed_now[j]:
                mask[p, [i for i in visible if i <= p]] = True
        masks += [mask] * len(stage)

    ends = np.cumsum([len(step.computed_now[0]) for step in steps]) - 1
    expected = masked_forward(tokens, masks)[ends]
    np.testing.assert_allclose([step.logits for step in steps], expected, atol=1e-4)
    dense = dense_logits(llama()[1], SHAPE, tokens)[ends]
    assert np.abs(dense - expected).max() > 0.1, "nothing was pruned: the test shows nothing"


# --- importance and selection ---------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("window, pool", [(1, 1), (3, 1), (3, 3)])
def test_importance_is_equation_1(window, pool, reduce):
    """Attention of the last `window` tokens in the layer before the cut, by mlx-lm's projections."""
    step = lazy(((2, 0.5),), window=window, pool=pool, reduce=reduce).step(PROMPT)

    model, length = llama()[0].model, len(PROMPT)
    causal = mx.array(np.tri(length, dtype=bool))
    x = model.layers[0](model.embed_tokens(mx.array([PROMPT])), causal, cache=None)
    attention, y = model.layers[1].self_attn, model.layers[1].input_layernorm(x)
    q = attention.rope(attention.q_proj(y).reshape(length, 4, 8).transpose(1, 0, 2)[None])[0]
    k = attention.rope(attention.k_proj(y).reshape(length, 2, 8).transpose(1, 0, 2)[None])[0]
    logits = q @ mx.repeat(k, 2, axis=0).transpose(0, 2, 1) * 8**-0.5
    maps = np.array(mx.softmax(mx.where(causal, logits, -mx.inf), axis=-1))
    per_head = maps[:, -window:].mean(axis=1)
    raw = per_head.mean(axis=0) if reduce == "mean" else per_head.max(axis=0)
    expected = [raw[max(0, i - pool // 2) : i + pool // 2 + 1].mean() for i in range(length)]
    np.testing.assert_allclose(step.importance[0], expected, atol=1e-5)


def test_attention_is_shared_among_what_the_layer_saw():
    """After an answer, more is computed than selected: only "selected" shares all attention among the selected."""
    for attend, whole in [("selected", True), ("computed", False)]:
        reference = lazy(attend=attend)
        step = converse(reference, turns=1)[1][-1]
        assert step.active[1] < reference.computed(1)
        assert (np.nansum(step.importance[1]) > 0.999) == whole


def test_smoothing_knows_no_token_outside_the_active_set():
    reference = lazy(attend="computed")
    active = converse(reference, turns=1)[1][-1].active[1]
    computed, last = reference.computed(1), [reference.length - 1]
    assert any(i + 1 in computed - active for i in active)
    raw = reference.importance(2, last, computed, active)
    reference.pool = 3
    expected = [np.nanmean(raw[max(0, i - 1) : i + 2]) for i in sorted(active)]
    np.testing.assert_allclose(reference.smoothed(raw, active)[sorted(active)], expected)


@pytest.mark.parametrize("keep, context, count", [(0.2, 10, 2), (0.7, 10, 7), (0.29, 100, 29), (0.2, 11, 3)])
def test_kept_count_rounds_up(keep, context, count):
    assert kept_count(keep, context) == count


@pytest.mark.parametrize("keep, context, count", [(0.07, 100, 7), (0.55, 100, 55), (0.14, 50, 7)])
def test_kept_count_is_exact_where_floats_are_not(keep, context, count):
    assert keep * context > count
    assert kept_count(keep, context) == count


def test_of_equal_scores_the_earlier_position_is_kept():
    """Without queries, attention is uniform: every token is as important as every other."""
    weights = dict(llama()[1])
    weights["model.layers.0.self_attn.q_proj.weight"] = np.zeros((32, 32))
    step = ReferenceLazyLLM(weights, SHAPE, ((1, 0.2),)).step(PROMPT)
    np.testing.assert_array_equal(step.importance[0], 1 / 20)
    assert step.active[1] == {0, 1, 2, 3, 19}


def test_protected_tokens_come_on_top_of_the_count():
    """keep 0.2 of 20 are 4; sinks 0 and 1, the window 18 and 19 and the recent 16 to 19 are kept besides."""
    step = lazy(((1, 0.2),), window=2, sink=2, recent=4).step(PROMPT)
    protected = {0, 1, 16, 17, 18, 19}
    assert protected < step.active[1]
    chosen = step.active[1] - protected
    left = step.active[0] - step.active[1]
    assert len(chosen) == 4
    assert min(step.importance[0][p] for p in chosen) > max(step.importance[0][p] for p in left)


def test_generated_tokens_stay_protected_and_recent_ones_move_on():
    """In the second answer: both first-turn answer tokens, the new prompt's end, and the token itself."""
    reference = lazy(((1, 0.05),), recent=3)
    reference.step(PROMPT)
    for token in (0, 1):
        reference.step([token], decode=True)
    reference.step(QUESTION)
    active = reference.step([2], decode=True).active[1]
    assert active > {20, 21} | {24, 25, 26} | {27}
    assert len(active) == 6 + 2  # ceil(0.05 * 28) besides


def test_a_prompt_rounds_up_and_an_answer_does_not():
    reference = lazy(((1, 0.2),), round_to=8)
    assert len(reference.step(PROMPT).active[1]) == 8
    assert len(reference.step([0], decode=True).active[1]) == 6  # ceil(0.2 * 21) and the token itself


def test_a_context_below_min_tokens_is_not_pruned():
    reference = lazy(min_tokens=21)
    assert all(len(active) == 20 for active in reference.step(PROMPT).active)
    assert len(reference.step([0], decode=True).active[1]) == 12  # ceil(0.5 * 21) and the token itself


# --- what is computed, and when -------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"revive": 2}, DEFAULT], ids=str)
def test_sets_nest_and_nothing_is_computed_twice(settings):
    reference = lazy(**settings)
    _, steps = converse(reference)
    for step in steps:
        for j, importance in enumerate(step.importance):
            assert step.active[j + 1] <= step.active[j]  # all of them, once nothing waits any more
            scored = set(np.flatnonzero(~np.isnan(importance)))
            assert scored == step.active[j] or (reference.revive is not None and scored > step.active[j])
    for stage in range(3):
        computed = [p for step in steps for p in step.computed_now[stage]]
        assert len(computed) == len(set(computed))
        assert set(computed) == reference.computed(stage)


def test_computing_twice_is_refused():
    reference = lazy()
    reference.step(PROMPT)
    with pytest.raises(AssertionError, match="position 19 computed twice in layer 1"):
        reference.compute(1, frozenset({19}), visible=frozenset({19}))


def test_with_revive_0_nothing_old_is_computed():
    _, steps = converse(lazy(revive=0))
    assert not any(revived for step in steps for revived in step.revived)
    _, steps = converse(lazy())
    assert any(step.revived[0] for step in steps)


def test_a_budget_revives_the_best_of_the_missing():
    """What an unlimited first decode step would revive, cut to its two best; the token itself is free."""
    budget, unlimited = lazy(((1, 0.5),), revive=2), lazy(((1, 0.5),))
    for model in (budget, unlimited):
        model.step(PROMPT)
    few, all_ = budget.step([0], decode=True), unlimited.step([0], decode=True)
    assert len(all_.revived[0]) > 2
    assert few.revived[0] == set(sorted(all_.revived[0], key=lambda p: -few.importance[0][p])[:2])
    assert 20 in few.computed_now[1]
    assert few.active[1] == all_.active[1] - (all_.revived[0] - few.revived[0])


def test_a_follow_up_revives_beyond_the_budget():
    budget, unlimited = lazy(((1, 0.5),), revive=1), lazy(((1, 0.5),))
    for model in (budget, unlimited):
        model.step(PROMPT)
    few, all_ = budget.step(QUESTION), unlimited.step(QUESTION)
    assert len(few.revived[0]) > 1
    assert few.computed_now == all_.computed_now
