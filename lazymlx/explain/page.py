"""`page`: an answer's history as one HTML file, which needs nothing but itself.

All that a document or a model says goes through the template's escaping. Should something slip through all the same,
the page's own policy lets no script run but the one whose hash it names, and nothing be fetched.
"""

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..stats import LazyStats
from .pieces import pieces
from .recording import History
from .runs import blocks, visible


def page(history: History, tokenizer: TokenizerWrapper, stats: LazyStats, question: str | None = None) -> str:
    """The page of an answer.

    Args:
        stats: as they were after the answer: its last response's `lazy`, or `session.stats`.
        question: to put at the top.
    """
    special = set(tokenizer.all_special_ids)
    states = history.depths()
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    script, style = _part("page.js"), _part("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template.from_string(_part("page.html")).render(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        style=Markup(style),
        script=Markup(script),
        question=None if question is None else visible(question),
        stats=stats,
        stages=stage_names(history),
        shades=shades(history.stages),
        blocks=blocks(history, pieces(tokenizer, history.tokens[: history.prompt_end]), special),
        answer=[
            (piece.stop, visible(piece.text), history.answer[piece.start] in special)
            for piece in pieces(tokenizer, history.answer)
        ],
        steps=len(history.changes),
        context=history.prompt_end,
        layers=history.edges[-1],
        totals=json.dumps([[int((depth > stage).sum()) for stage in range(history.stages)] for depth in states]),
        revived=json.dumps(history.revived()),
    )


def stage_names(history: History) -> list[str]:
    """Which layers each stage consists of."""
    spans = zip(history.edges, history.edges[1:], strict=False)
    return [f"layers {start}–{stop - 1}" if stop - start > 1 else f"layer {start}" for start, stop in spans]


def shades(stages: int) -> list[int]:
    """How much colour the tokens of each depth have, in percent: none if they were left behind at the first cut."""
    return [0, *np.linspace(100, 30, stages - 1).astype(int)[::-1].tolist()] if stages > 1 else [100]


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
