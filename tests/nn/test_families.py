"""Every family against mlx-lm's own model with the same random weights, in float32.

With nothing left behind the logits are mlx-lm's, whatever the way in which the tokens came. With tokens left behind
they are those of mlx-lm's layers under a mask that hides these tokens, which needs neither our attention nor caches.
"""

import inspect
import pkgutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.models
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import MODEL_REMAPPING
from reference import SETTINGS, Shape
from tiny import WatchedReference, by_rows
from upstream import classes_of
from zoo import CONFIGS, LAYERS, SEEING, VOCAB, WINDOW, configuration, pair

from lazymlx.cache.masks import causal
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.errors import ConfigError, ModelError
from lazymlx.loading.load import model_classes
from lazymlx.nn.families import FAMILIES, family_of, table
from lazymlx.nn.families import SEEING as SEEING_FAMILIES
from lazymlx.nn.families.refused import REFUSED

TOKENS = [int(t) for t in np.random.default_rng(5).integers(VOCAB, size=46)]
NAMES = [*CONFIGS, *SEEING]
WINDOWED = {"llama, windows", "cohere2", "exaone4", "exaone_moe", "gemma3_text", "ministral3", "olmo3", "gpt_oss"}
WINDOWED |= {"afmoe", "mellum", "gemma3", "mistral3"}

# Parts of mlx-lm's models that are no architectures.
HELPERS = {
    "activations",
    "base",
    "bitlinear_layers",
    "cache",
    "gated_delta",
    "mla",
    "pipeline",
    "rope_utils",
    "ssm",
    "switch_layers",
}


@pytest.fixture(autouse=True, scope="module")
def uncompiled():
    """Compiling upstream's small functions takes longer than these tests."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def assert_close(got, expected, what: str) -> None:
    worst = np.abs(np.array(got) - np.array(expected)).max()
    assert worst < 1e-4 * max(1.0, np.abs(np.array(expected)).max()), f"{what}: differs by {worst:.1e}"


def dense(name: str) -> mx.array:
    """mlx-lm's logits for every token."""
    return pair(name)[0](mx.array([TOKENS]))[0]


def say(model: Model, cache: list, start: int, stop: int, chunk: int) -> mx.array:
    """Give a prompt in chunks, its last token alone, as mlx-lm's loop does. Returns the last token's logits."""
    model = by_rows(model, chunk)
    cache[0].expect(stop - start)
    for at in range(start, stop - 1, chunk):
        model(mx.array([TOKENS[at : min(at + chunk, stop - 1)]]), cache=cache)
    return model(mx.array([TOKENS[stop - 1 : stop]]), cache=cache)[0, -1]


@pytest.mark.parametrize("name", NAMES)
def test_without_a_cache_logits_are_mlx_lms(name):
    _, ours = pair(name)
    assert_close(ours(mx.array([TOKENS]))[0], dense(name), "dense")


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text", "gemma3", "ministral3", "gpt_oss", "mellum"])
def test_embeddings_in_the_place_of_tokens(name):
    """Where upstream takes them too; a family may scale them."""
    theirs, ours = pair(name)
    tokens, given = mx.array([TOKENS]), mx.random.normal((1, len(TOKENS), ours.hidden_size))
    copy = mx.array(given)  # Gemma 3 scales its argument in place
    if "input_embeddings" in inspect.signature(type(theirs).__call__).parameters:
        expected = theirs(tokens, input_embeddings=copy)
    else:
        expected = theirs.lm_head(theirs.model(tokens, input_embeddings=copy))
    assert_close(ours(tokens, input_embeddings=given)[0], expected[0], "embeddings")
    cache = ours.make_cache(LazyConfig("3:1.0", min_tokens=0))
    cache[0].expect(len(TOKENS))
    assert_close(ours(tokens, cache=cache, input_embeddings=given)[0, -1], expected[0, -1], "embeddings, cached")


@pytest.mark.unchecked
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", [(), ((3, 1.0),)], ids=["no cut", "keep all"])
def test_with_everything_kept_logits_are_mlx_lms(name, schedule):
    """A prompt in chunks, an answer, a follow-up, another answer; longer than any window throughout."""
    _, ours = pair(name)
    expected, cache = dense(name), ours.make_cache(LazyConfig(schedule, min_tokens=0))
    assert_close(say(ours, cache, 0, 24, 12), expected[23], "prefill")
    for at in (24, 25):
        assert_close(ours(mx.array([TOKENS[at : at + 1]]), cache=cache)[0, -1], expected[at], f"decode at {at}")
    assert_close(say(ours, cache, 26, 42, 15), expected[41], "follow-up")
    assert_close(ours(mx.array([TOKENS[42:43]]), cache=cache)[0, -1], expected[42], "decode at 42")


def hidden_from_layer(name: str, cut: int, kept: np.ndarray) -> mx.array:
    """The last token's logits of mlx-lm's own layers; from `cut` on, what is not in `kept` is masked."""
    theirs, ours = pair(name)
    x = ours.family.embedded(theirs, mx.array([TOKENS]), None)
    at = mx.arange(len(TOKENS))
    for index, layer in enumerate(ours.family.layers(theirs)):
        mask = causal(at, at, ours.windows[index])
        if index >= cut:
            mask = mask & mx.array(kept)[None] | mx.eye(len(TOKENS), dtype=mx.bool_)
        x = layer(x, mask=mask, cache=None)
    return ours.family.answer(theirs, x)[0, -1]


@pytest.mark.unchecked
@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_behind_is_as_if_masked(name):
    """Both modes leave tokens behind at layer 3, then answer as mlx-lm's layers do without them."""
    _, ours = pair(name)
    for config in (LazyConfig.paper("3:0.4"), LazyConfig("3:0.3", window=4, recent=3, min_tokens=0, round_to=4)):
        cache = ours.make_cache(config)
        logits = say(ours, cache, 0, len(TOKENS), 24)
        stage = cache[0].stages[1]
        positions = np.array(stage.positions[: stage.filled])
        assert 0 < len(positions) < len(TOKENS)
        assert_close(logits, hidden_from_layer(name, 3, np.isin(np.arange(len(TOKENS)), positions)), "pruned")


@pytest.mark.unchecked
@pytest.mark.parametrize("name", NAMES)
def test_no_token_is_computed_twice(name):
    """Also not when tokens come back, in an answer and in a follow-up."""
    _, ours = pair(name)
    cache = ours.make_cache(LazyConfig("3:0.3", window=4, recent=2, sink=1, revive=2, min_tokens=0, round_to=1))
    say(ours, cache, 0, 24, 12)
    for at in range(24, 28):
        logits = ours(mx.array([TOKENS[at : at + 1]]), cache=cache)
    say(ours, cache, 28, len(TOKENS), 17)
    for stage in cache[0].stages:
        held = np.array(stage.positions[: stage.filled]).tolist()
        assert len(held) == len(set(held))
    assert cache[0].turn.revived > 0
    assert np.isfinite(np.array(logits)).all()


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_prepared_as_upstream_does(name):
    """Which may need more of upstream's model than its parts."""
    theirs, ours = pair(name)
    weights = dict(tree_flatten(theirs.parameters()))
    prepared = theirs.sanitize(dict(weights)) if hasattr(theirs, "sanitize") else weights
    assert ours.sanitize(dict(weights)).keys() == prepared.keys()
    assert ours.vocab_size == VOCAB


def twins(name: str, weights: dict[str, mx.array] | None = None, **changes) -> tuple[nn.Module, Model]:
    """mlx-lm's model and ours, with some weights and entries of the configuration changed."""
    config = {**configuration(name), **changes}
    their_class, args_class = classes_of(config)
    theirs, ours = their_class(args_class.from_dict(config)), Model(args_class.from_dict(config))
    for model in (theirs, ours):
        model.load_weights(list({**dict(tree_flatten(pair(name)[0].parameters())), **(weights or {})}.items()))
    return theirs, ours


SINKS = {"model.layers.2.self_attn.sinks": mx.array([20.0, 0.0, 20.0, 0.0])}  # of two heads, more than all scores
SCORED = {"gemma2": "scale", "gpt_oss": "sm_scale", "llama": "scale"}


@pytest.mark.parametrize("name", SCORED)
def test_scores_are_those_of_the_familys_own_attention(name):
    """Capped, and with what a sink takes: the probabilities of upstream's layer 2, averaged over heads."""
    theirs, ours = twins(name, SINKS if name == "gpt_oss" else {})
    at = mx.arange(len(TOKENS))
    x = ours.family.embedded(theirs, mx.array([TOKENS]), None)
    for layer, window in zip(theirs.layers[:2], ours.windows, strict=False):
        x = layer(x, mask=causal(at, at, window), cache=None)
    attention, x = theirs.layers[2].self_attn, theirs.layers[2].input_layernorm(x)
    by_head = [w(x).reshape(1, len(TOKENS), -1, 8).transpose(0, 2, 1, 3) for w in (attention.q_proj, attention.k_proj)]
    queries, keys = (np.array(attention.rope(rows))[0] for rows in by_head)
    logits = np.einsum("hd,hsd->hs", queries[:, -1], keys.repeat(2, axis=0)) * getattr(attention, SCORED[name])
    if name == "gemma2":
        logits = np.tanh(logits / 3.0) * 3.0
    sinks = np.exp(np.array(attention.sinks)) if name == "gpt_oss" else 0.0
    importance = (np.exp(logits).T / (np.exp(logits).sum(axis=1) + sinks)).mean(axis=1)
    importance[-1] = np.inf  # the token that asks
    cache = ours.make_cache(LazyConfig.paper("3:0.3"))
    say(ours, cache, 0, len(TOKENS), 9)
    assert held_in(cache) == sorted(np.argsort(-importance)[: cache[0].turn.kept[0]].tolist())


def test_dynamic_scaling_beyond_the_longest_context():
    """Rows are rotated by the conversation's length when they come, in every stage."""
    theirs, ours = twins("internlm3", max_position_embeddings=16)
    cache, expected = ours.make_cache(LazyConfig("3:1.0", min_tokens=0)), make_prompt_cache(theirs)
    cache[0].expect(24)
    for start, stop in ((0, 24), (24, 25), (25, 26)):
        tokens = mx.array([TOKENS[start:stop]])
        assert_close(ours(tokens, cache=cache)[0, -1], theirs(tokens, cache=expected)[0, -1], f"at {stop}")


@pytest.mark.parametrize("name", NAMES)
def test_rotated_keys_of_one_place_become_those_of_another(name):
    """Where nothing but their position is in them."""
    ours = pair(name)[1]
    assert ours.shiftable != (name in {"internlm3", "hunyuan_v1_dense", "ministral3", "mistral3"})
    for layer in ours.layers if ours.shiftable else ():
        attention = ours.family.attention_of(layer)
        keys = mx.random.normal((1, attention.kv_heads, 5, ours.head_size), key=mx.random.key(0))
        here, there = (attention.placed(keys, mx.arange(at, at + 5), 400) for at in (300, 20))
        assert_close(attention.shifted(there, 280), here, "forth")
        assert_close(attention.shifted(here, -280), there, "back")


# --- against the oracle -----------------------------------------------------------------------------

MODES = {
    "paper": LazyConfig.paper("3:0.5,5:0.3"),
    "default": LazyConfig(
        "3:0.4", window=3, pool=3, sink=1, recent=2, revive=2, revive_every=1, min_tokens=0, round_to=4
    ),
}


# a cut of this model must have layer 2 before it, or layer 5, which is the last
LAST_CUT = {mode: replace(config, schedule="4:0.4") for mode, config in MODES.items()}


def oracle(name: str, config: LazyConfig) -> WatchedReference:
    """The NumPy oracle with the same weights."""
    theirs, ours = pair(name)
    args = ours.args
    shape = Shape(LAYERS, args.num_attention_heads, args.num_key_value_heads, args.head_dim or 8)
    shape = replace(shape, windows=tuple(ours.windows))
    weights = {path: np.array(w) for path, w in tree_flatten(theirs.parameters())}
    return WatchedReference(weights, shape, config.cuts, **{name: getattr(config, name) for name in SETTINGS})


@pytest.mark.unchecked
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["llama, tied, biased", "llama, windows", "mistral", "qwen3", "qwen3, tied"])
def test_what_is_left_behind_is_what_the_oracle_leaves(name, mode):
    """A prompt, an answer and a follow-up, with tokens that come back."""
    _, ours = pair(name)
    config = ours.resolve(MODES[mode]) if name != "llama, windows" else ours.resolve(LAST_CUT[mode])
    reference, cache = oracle(name, config), ours.make_cache(config)
    expected = [reference.step(TOKENS[:24]).logits]
    expected += [reference.step([token], decode=True).logits for token in TOKENS[24:28]]
    expected += [reference.step(TOKENS[28:42]).logits]
    assert reference.margin > 1e-5, "a near tie, choose other tokens"
    got = [say(ours, cache, 0, 24, 9)]
    got += [ours(mx.array([[token]]), cache=cache)[0, -1] for token in TOKENS[24:28]]
    got += [say(ours, cache, 28, 42, 8)]
    for number, (logits, truth) in enumerate(zip(got, expected, strict=True)):
        assert_close(logits, truth, f"step {number}")


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_windows_are_taken_from_the_configuration(name):
    """And they are small enough for the tests above to be about them."""
    assert set(pair(name)[1].windows) == ({WINDOW, None} if name in WINDOWED else {None})
    assert WINDOW < len(TOKENS) // 4


def mistral(window: int | None, longest: int = 512) -> Model:
    """Mistral 7B v0.1 in small: it has one window for all layers, and lists none."""
    return twins("mistral", sliding_window=window, max_position_embeddings=longest)[1]


def test_a_window_for_all_layers_is_kept_where_upstream_forgets_it():
    """Up to the window both say the same, beyond it only ours is the model's."""
    theirs, ours, tokens = pair("mistral")[0], mistral(WINDOW), mx.array([TOKENS])
    assert list(ours.windows) == [WINDOW] * LAYERS
    assert_close(ours(tokens[:, :WINDOW]), theirs(tokens[:, :WINDOW]), "within the window")
    assert mx.abs(ours(tokens) - theirs(tokens)).max() > 1e-2


def test_a_window_as_wide_as_the_longest_context_is_none():
    assert not any(mistral(512).windows)
    assert not any(mistral(None).windows)


def test_with_a_window_on_every_layer_prompts_are_cut_while_they_are_inside_of_it():
    """A longer prompt is computed in full, since no layer sees all of it; an answer may grow out of the window."""
    ours = mistral(26)
    config = LazyConfig("3:0.4", window=3, recent=2, min_tokens=0, round_to=1)
    cache = ours.make_cache(config)
    say(ours, cache, 0, 24, 9)
    assert cache[0].turn.kept[0] < 24
    without = pair("mistral")[1].make_cache(config)
    say(pair("mistral")[1], without, 0, 24, 9)
    assert held_in(cache) == held_in(without)
    for at in range(24, 30):
        assert np.isfinite(np.array(ours(mx.array([TOKENS[at : at + 1]]), cache=cache))).all()
    cache = ours.make_cache(config)
    assert_close(say(ours, cache, 0, 40, 9), ours(mx.array([TOKENS[:40]]))[0, -1], "beyond the window")
    assert cache[0].turn.kept == (40,)


def held_in(cache: list) -> list[int]:
    """Positions behind the first cut."""
    stage = cache[0].stages[1]
    return sorted(np.array(stage.positions[: stage.filled]).tolist())


def test_windows_change_the_logits():
    """The same weights without windows answer differently."""
    with_windows, without = (np.array(pair(name)[1](mx.array([TOKENS]))[0]) for name in ("llama, windows", "llama"))
    assert_close(with_windows[:WINDOW], without[:WINDOW], "inside of a window")
    assert np.abs(with_windows[-1] - without[-1]).max() > 0.1


@pytest.mark.parametrize("schedule", ["2:0.5", "3:0.5,5:0.2"])
def test_a_cut_that_no_layer_can_score_is_refused(schedule):
    """Layers 0, 1, 3 and 4 have a window; a cut is possible behind layer 2 only."""
    _, ours = pair("llama, windows")
    with pytest.raises(ConfigError, match="window.*can be cut behind each of the layers that see everything, at 3"):
        ours.make_cache(LazyConfig(schedule))


def test_a_presets_cuts_move_to_where_layers_can_score():
    _, ours = pair("llama, windows")
    assert str(ours.make_cache(LazyConfig("early"))[0].config.schedule) == "3:0.4"


def test_scores_come_from_the_last_layer_that_sees_everything():
    """A cut two layers behind it leaves the same tokens behind as one directly behind it."""
    _, ours = pair("llama, windows")
    kept = []
    for layer in (3, 5):
        cache = ours.make_cache(LazyConfig.paper(((layer, 0.3),)))
        say(ours, cache, 0, len(TOKENS), 9)
        stage = cache[0].stages[1]
        kept.append(set(np.array(stage.positions[: stage.filled]).tolist()))
    assert kept[0] == kept[1]
    assert min(kept[0]) < len(TOKENS) - 2 * WINDOW  # tokens outside of the window are among them


# --- what is served -------------------------------------------------------------------------------


def test_every_family_is_tested():
    assert {name.split(",")[0] for name in CONFIGS} == FAMILIES.keys()
    assert SEEING.keys() == SEEING_FAMILIES.keys()


def test_every_architecture_of_mlx_lm_is_served_or_refused_with_a_reason():
    """A new version of mlx-lm with new architectures fails here: write their family, or say why not."""
    modules = {module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__)}
    known = {*FAMILIES, *SEEING_FAMILIES, *(kind for kinds in REFUSED.values() for kind in kinds)}
    assert modules | MODEL_REMAPPING.keys() == known | HELPERS
    assert not HELPERS & known
    assert sum(map(len, REFUSED.values())) + len(FAMILIES) + len(SEEING_FAMILIES) == len(known), "named twice"


def test_a_refused_architecture_says_why():
    with pytest.raises(ModelError, match="'mamba2' is not supported: some layers are state-space"):
        model_classes({"model_type": "mamba2"})
    with pytest.raises(ModelError, match="'mistral4' is not supported: its attention keeps one compressed latent"):
        model_classes({"model_type": "mistral3", "text_config": {"model_type": "mistral4"}})


def test_an_unknown_architecture_names_those_that_are_served():
    with pytest.raises(ModelError, match="'brandnew' is not supported; supported are .*llama.*qwen3"):
        model_classes({"model_type": "brandnew"})
    with pytest.raises(ModelError, match="None is not supported"):
        model_classes({})


def test_the_readme_shows_the_table():
    """To mend it, put what `lazymlx.nn.families.table()` returns between the markers."""
    readme = (Path(__file__).parents[2] / "lazymlx" / "nn" / "families" / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- families: made by lazymlx.nn.families.table -->\n")[1].split("\n<!-- /families -->")[0]
    assert shown == table()


@pytest.mark.parametrize("kind", [*FAMILIES, *SEEING_FAMILIES])
def test_upstreams_configuration_is_used(kind):
    family = family_of(kind, configuration(kind).get("text_config"))
    assert model_classes(configuration(kind))[1] is family.module.ModelArgs
    assert f"`{kind}`" in table()
