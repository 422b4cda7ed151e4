"""A server of two ranks: rank 0 has the clients, and the other one computes what it does, also when one goes away."""

from pathlib import Path

import numpy as np
import pytest
from commands import TEXT
from together import together

from lazymlx.config import LazyConfig
from lazymlx.errors import Cancelled
from lazymlx.loading.load import load
from lazymlx.ranks.group import ALONE, Ranks
from lazymlx.serve.answer import Piece, Update
from lazymlx.serve.answering import Answering
from lazymlx.serve.conversations import Conversations
from lazymlx.serve.encoding import RequestEncoder
from lazymlx.serve.following import described, follow
from lazymlx.serve.job import Job
from lazymlx.serve.request import Chat, Request

# averages over neighbours are near ties, see test_launched
LAZY = LazyConfig("2:0.5,4:0.2", min_tokens=16, recent=2, window=2, round_to=1, pool=1)
ASKED = ["Who?", "Where?", "Who?"]  # the second client leaves


def test_the_others_follow(monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> None:
    def run(ranks: Ranks) -> list:
        model, tokenizer = load(str(tiny_model_folder), LAZY, ranks=ranks)
        conversations, encoder = Conversations(model, 4), RequestEncoder(tokenizer, None, 8)
        answering, heard = Answering(model, tokenizer, conversations, 512), list[str]()

        def serve(question: str, leaves: bool) -> None:
            messages = ({"role": "user", "content": f"{TEXT} {question}"},)
            request = Request(Chat(messages), max_tokens=6, temperature=0.7, seed=ranks.rank)

            def tell(told: Update) -> None:
                if isinstance(told, Piece):
                    heard.append(told.text)
                    if leaves and len(heard) % 3 == 0:
                        job.cancelled.set()

            job = Job(request, encoder.encode(request), tell)
            ranks.decided("job", lambda: described(job))
            try:
                answering.answer(job)
            except Cancelled:
                assert leaves

        if ranks.rank:
            follow(answering, ranks)
        else:
            for number, question in enumerate(ASKED):
                serve(question, leaves=number == 1)
            ranks.decided("job", lambda: None)
        kept = [np.array(conversation.tokens).tolist() for conversation in conversations.kept]
        return [heard, kept]

    alone = run(ALONE)
    first, second = together(2, monkeypatch, run)
    assert first == alone and len(alone[1]) == 3
    assert second == [[], alone[1]]
