"""A tiny random model that can be talked to: one token a character, a chat template, and nothing to download."""

from dataclasses import replace
from functools import cache

import mlx.core as mx
import numpy as np
from looking import random_maps
from mlx.utils import tree_flatten
from mlx_lm.models.llama import ModelArgs
from mlx_lm.tokenizer_utils import TokenizerWrapper
from reference import Shape
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lazymlx.cache.conversation import LazyCache
from lazymlx.cache.undo import Mark
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.session.session import Session

SPECIAL = ["<bos>", "<end>", "<system>", "<user>", "<assistant>"]
VOCAB = SPECIAL + list("abcdefghijklmnopqrstuvwxyzQ?:. \n")
SHAPE = Shape(layers=5, heads=4, kv_heads=2, head_dim=8)
TEMPLATE = (
    "<bos>{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FORGETFUL = TEMPLATE.replace("m['content']", "(m['content'] if m['role'] != 'assistant' else m['content'][2:])")
DOCUMENT = "the key of the harbour is kept by an old man. he was born in a town far from the sea."

# The default mode, scaled down to a document of a hundred tokens.
LAZY = LazyConfig("2:0.4,4:0.2", window=3, pool=3, sink=1, recent=2, revive=2, revive_every=1, min_tokens=0, round_to=4)
LOOKING = replace(LAZY, lookahead=12)  # over maps that know nothing


@cache
def weights() -> dict[str, np.ndarray]:
    """Random, and large enough for peaked attention."""
    rng = np.random.default_rng(3)
    return {
        name: rng.normal(1.0 if "norm" in name else 0.0, 0.3, size=w.shape).astype(np.float32)
        for name, w in sorted(tree_flatten(Model(arguments()).parameters()))
    }


def arguments() -> ModelArgs:
    return ModelArgs(
        model_type="llama",
        hidden_size=32,
        num_hidden_layers=SHAPE.layers,
        intermediate_size=48,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_heads,
        head_dim=SHAPE.head_dim,
        rms_norm_eps=SHAPE.rms_eps,
        vocab_size=len(VOCAB),
        tie_word_embeddings=False,
    )


def talker(lazy: LazyConfig = LAZY) -> Model:
    model = Model(arguments())
    model.load_weights([(name, mx.array(w)) for name, w in weights().items()])
    model.lazy = lazy
    if lazy == LOOKING:
        model.look_with(random_maps(0, SHAPE.layers))
    mx.eval(model.parameters())
    return model


@cache
def speller(template: str | None = TEMPLATE) -> TokenizerWrapper:
    """A tokenizer of characters, so that a text has exactly one tokenisation. No token ends an answer."""
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCAB)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", clean_up_tokenization_spaces=False)
    fast.chat_template = template
    return TokenizerWrapper(fast)


def session(lazy: LazyConfig = LAZY, template: str | None = TEMPLATE, **options) -> Session:
    return Session(talker(lazy), speller(template), lazy=lazy, **options)


def cache_of(session: Session) -> LazyCache:
    """What a session has computed, bit by bit, which it shows to nobody but its tests."""
    return session._cache


def marks_of(session: Session) -> list[Mark | None]:
    """What undoing its turns goes by."""
    return [turn.mark for turn in session._turns]


def answer(session: Session, question: str, max_tokens: int = 6, **options) -> tuple[str, np.ndarray]:
    """The text of an answer, and the log-probabilities of every token's distribution, `(T, V)`."""
    responses = list(session.ask(question, max_tokens, **options))
    return "".join(r.text for r in responses), np.stack([np.array(r.logprobs) for r in responses])
