"""Whatever JSON a client sends, it gets a request or a sentence of refusal, never an error of the program."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazymlx.serve import anthropic, chat, completions
from lazymlx.serve.api import Api
from lazymlx.serve.request import Refusal, Request

APIS = [chat.API, completions.API, anthropic.API]
NAMES = st.sampled_from(
    "chat_template_kwargs messages role content type text tool_calls function name arguments tools tool_choice "
    "system stop stop_sequences prompt max_tokens temperature top_p top_k seed n logprobs top_logprobs logit_bias "
    "response_format stream stream_options thinking input_schema tool_result tool_use document source data "
    "input id".split()
)
WORDS = st.sampled_from(["user", "assistant", "system", "tool", "text", "image", "document", "auto", "", "{", "x"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
ANYTHING = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))
TALK = st.lists(st.fixed_dictionaries({"role": WORDS, "content": ANYTHING}, optional={"tool_calls": ANYTHING}))
BODIES = st.dictionaries(NAMES, ANYTHING, max_size=6)


@pytest.mark.parametrize("api", APIS, ids=["chat", "completions", "anthropic"])
@given(body=BODIES, messages=TALK, prompt=ANYTHING)
def test_any_body_is_understood_or_refused(api: Api, body: dict[str, Any], messages: list, prompt: Any) -> None:
    for sent in (body, {**body, "messages": messages, "prompt": prompt}):
        try:
            assert isinstance(api.request(sent), Request)
        except Refusal as refusal:
            assert refusal.status == 400 and len(refusal.message) < 600
            assert api.refusal(refusal)["error"]["message"] == refusal.message
