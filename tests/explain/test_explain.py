"""Explain pages: what is recorded is what happened, and what is shown is what was recorded."""

import html.parser
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer
from talking import DOCUMENT, session, speller
from tiny import clear_rehearsal, twin_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lazymlx.config import LazyConfig
from lazymlx.demo import MODEL
from lazymlx.errors import StateError
from lazymlx.explain import History, Trace, page
from lazymlx.explain.pieces import pieces
from lazymlx.explain.recording import Change
from lazymlx.explain.runs import visible
from lazymlx.generation import generate_step
from lazymlx.loading.load import load
from lazymlx.session.session import Session
from lazymlx.stats import LazyStats

CUTS = "2:0.5,4:0.2"
BUDGET = LazyConfig(CUTS, window=4, pool=3, sink=2, recent=4, revive=3, revive_every=1, min_tokens=0, round_to=4)
SCRIPT = (("prompt", 60), ("decode", 6), ("prompt", 8), ("decode", 5))
HOSTILE = (
    "</script><script>hurt()</script> <img src=x onerror='hurt()'> \"quotes' &amp; {{ 7 * 7 }} <!-- </title></style>"
    "\u2028\u2029 NUL\0 bell\a \u202eright to left\u202c שלום עולם 👩‍🚀 e\u0301 \ufeff\n\n<b>bold</b>\tend "
)

# --- what is recorded -----------------------------------------------------------------------------


@pytest.mark.parametrize("config", [BUDGET, LazyConfig.paper(CUTS)], ids=["budget", "paper"])
def test_depths_are_those_of_the_oracle(config: LazyConfig) -> None:
    """After every step of two turns, the tokens recorded as computed in a stage are those of the NumPy LazyLLM."""
    rehearsal = clear_rehearsal(config, SCRIPT)
    model, moments, earlier = twin_of(rehearsal.stock), list(rehearsal.moments), ()
    revived = 0
    cache = model.make_cache(config)
    for (_, length), (_, steps) in (SCRIPT[:2], SCRIPT[2:]):
        turn, moments = moments[: steps + 1], moments[steps + 1 :]
        trace = Trace(earlier)
        list(generate_step(turn[0].tokens, model, prompt_cache=cache, max_tokens=steps, on_step=trace.note))
        history = trace.history()
        assert history.tokens == (*earlier, *(token for moment in turn for token in moment.tokens))
        assert history.prompt_end - history.turn_start == length
        for depth, moment in zip(history.depths(), turn, strict=True):
            for stage, expected in enumerate(moment.computed):
                assert set(np.flatnonzero(depth > stage)) == expected
        assert sum(history.revived()) == turn[-1].revived - revived
        earlier, revived = history.tokens, turn[-1].revived
    assert history.returned().any() and sum(history.revived()[1:]) > 0


def asked(talk: Session, question: str, **options) -> History:
    trace = Trace(talk.tokens)
    list(talk.ask(question, 6, on_step=trace.note, **options))
    return trace.history()


def test_recording_changes_nothing() -> None:
    plain, traced = session(), session()
    trace = Trace()
    one = [response.token for response in plain.ask("where was he born?", 6)]
    assert [response.token for response in traced.ask("where was he born?", 6, on_step=trace.note)] == one
    assert trace.history().answer == tuple(one)


def test_an_answer_of_one_token_is_shown() -> None:
    talk, trace = session(), Trace()
    [response] = talk.ask("who?", 1, on_step=trace.note)
    assert trace.history().answer == (response.token,)
    assert trace.history().changes == ()


def test_a_trace_has_to_know_what_came_before() -> None:
    talk, trace = session(), Trace()
    with pytest.raises(StateError, match="nothing was answered"):
        trace.history()
    talk.read(DOCUMENT)
    with pytest.raises(StateError, match=r"of which 0 are known; make a new one with Trace\(session.tokens\)"):
        list(talk.ask("who?", 2, on_step=trace.note))


# --- the text of tokens ---------------------------------------------------------------------------


@cache
def byte_level() -> TokenizerWrapper:
    return load_tokenizer(MODEL)


@cache
def byte_fallback() -> TokenizerWrapper:
    """As SentencePiece has it: spaces belong to words, the first one is dropped, and rare characters are bytes."""
    words = ["<unk>", "▁", "▁a", "a", "b", "▁ab", ".", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {word: n for n, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab, [("▁", "a"), ("▁a", "b")], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", clean_up_tokenization_spaces=False)
    return TokenizerWrapper(fast)


TOKENIZERS = {"bytes": byte_level, "fallback": byte_fallback}


def check(tokenizer: TokenizerWrapper, tokens: list[int]) -> None:
    parts = pieces(tokenizer, tokens)
    assert "".join(part.text for part in parts) == tokenizer.decode(tokens)
    assert [n for part in parts for n in range(part.start, part.stop)] == list(range(len(tokens)))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_pieces_make_up_the_text_whatever_the_tokens(name: str, data: st.DataObject) -> None:
    """Any tokens: half characters, bytes that are none, special ones."""
    tokenizer = TOKENIZERS[name]()
    check(tokenizer, data.draw(st.lists(st.integers(0, len(tokenizer.vocab) - 1), max_size=60)))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(max_size=60))
def test_pieces_make_up_the_text_whatever_it_is(name: str, text: str) -> None:
    check(TOKENIZERS[name](), TOKENIZERS[name]().encode(text, add_special_tokens=False))


def test_a_piece_is_a_token_or_a_whole_character() -> None:
    tokens = byte_level().encode("The harbour 👩‍🚀 has lamps.", add_special_tokens=False)
    parts = pieces(byte_level(), tokens)
    assert len(parts) < len(tokens)
    assert not any("\ufffd" in part.text for part in parts)
    assert all(part.stop - part.start == 1 for part in parts if part.text.isascii() and part.text.strip())


# --- what is on the page --------------------------------------------------------------------------


class Shown(html.parser.HTMLParser):
    """The page as a parser sees it, without its script."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.totals, self.revived, self.policy = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if values.get("id") == "step":
            self.totals, self.revived = json.loads(values["data-totals"]), json.loads(values["data-revived"])
        self.policy += (values.get("content") or "") if "http-equiv" in values else ""


def test_totals_are_those_of_the_statistics() -> None:
    talk = session()
    talk.read(DOCUMENT)
    revived = 0
    for question in ("where was he born?", "who keeps the key?"):
        history, stats = asked(talk, question), talk.stats
        shown = Shown(page(history, speller(), stats, question))
        assert tuple(shown.totals[-1]) == stats.computed
        assert sum(shown.revived) == stats.revived - revived
        assert shown.totals[0][0] == stats.prompt_end and len(shown.totals) == len(history.answer) + 1
        revived = stats.revived
    assert history.returned().any()


def test_a_dense_page_says_so() -> None:
    talk = session(LazyConfig.dense())
    history, stats = asked(talk, "who?"), talk.stats
    text = page(history, speller(), stats)
    assert "Everything was computed in all 5 layers" in text
    assert "#text .d1" not in text  # the style of what was left behind
    assert Shown(text).totals[-1] == [stats.context_tokens]


def test_the_page_fetches_nothing() -> None:
    talk = session()
    history = asked(talk, "who?")
    shown = Shown(page(history, speller(), talk.stats))
    assert shown.policy.startswith("default-src 'none'; ") and shown.tags.count("script") == 1
    assert not {"link", "img", "iframe", "object"} & set(shown.tags)


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with browser() as chromium:
        yield chromium


@pytest.fixture
def opened(chromium, tmp_path: Path) -> Iterator:
    """Opens a page; whatever it complains about fails the test."""
    tabs, complaints = [], []

    def open_page(text: str, **options):
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        tab = chromium.new_page(**options)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.goto((tmp_path / "page.html").as_uri())
        tabs.append(tab)
        return tab

    yield open_page
    for tab in tabs:
        tab.close()
    assert not complaints


SPANS = """() => [...document.querySelectorAll("#text span")].map(span => ({
    text: span.textContent, place: Number(span.dataset.p), depth: Number(span.className.match(/^d(\\d+)/)[1]),
    back: span.classList.contains("back"), now: span.classList.contains("now"), at: span.dataset.at}))"""


TEXT = """() => [...document.querySelectorAll("#text div")].map(block => block.textContent).join("")"""


def check_state(tab, history: History, step: int) -> None:
    """What is shown after a token of the answer is what was recorded; one letter is one token here."""
    depth, revived = history.depths()[step][: history.prompt_end], history.revived()
    shown = np.zeros_like(depth)
    spans = tab.evaluate(SPANS)
    for span, following in zip(spans, [*(span["place"] for span in spans[1:]), len(depth)], strict=True):
        shown[span["place"] : following] = span["depth"]
        assert span["now"] == (span["back"] and span["at"] == (str(step) if step else "q"))
    assert shown.tolist() == depth.tolist()
    assert any(span["now"] for span in spans) == (revived[step] > 0)
    assert tab.locator("#revived").inner_text() == str(sum(revived[: step + 1]))
    totals = [int((history.depths()[step] > stage).sum()) for stage in range(history.stages)]
    assert tab.locator(".legend b").all_inner_texts() == [str(total) for total in totals]
    said = speller().decode(history.answer).lstrip()
    assert tab.locator("#answer").text_content() == said
    assert len(tab.locator("#answer .later").all()) == len(history.answer) - step


def test_the_slider_shows_every_step(opened) -> None:
    talk = session()
    talk.read(DOCUMENT)
    asked(talk, "where was he born?")
    history = asked(talk, "who keeps the key?")
    tab = opened(page(history, speller(), talk.stats, "who keeps the key?"))
    assert tab.evaluate(TEXT) == speller().decode(history.tokens[: history.prompt_end])
    assert tab.locator("h1").inner_text() == "who keeps the key?"
    slider, last = tab.locator("#step"), len(history.changes)
    check_state(tab, history, last)
    slider.focus()
    for step in range(last - 1, -1, -1):
        tab.keyboard.press("ArrowLeft")
        check_state(tab, history, step)
    tab.keyboard.press("ArrowRight")
    check_state(tab, history, 1)
    slider.fill(str(last))
    check_state(tab, history, last)
    assert slider.get_attribute("aria-valuetext").startswith(f"after token {last} of {last}: ")


def test_documents_cannot_break_out(opened, tiny_model_folder: Path) -> None:
    model, tokenizer = load(str(tiny_model_folder), LazyConfig(CUTS, min_tokens=0, recent=2, window=2, round_to=1))
    tokens = tokenizer.encode(HOSTILE * 5)
    torn = byte_level().encode("👩", add_special_tokens=False)[:-1]  # ends in the middle of a character
    talk, trace = model.make_cache(), Trace()
    list(generate_step([*tokens, *torn], model, prompt_cache=talk, max_tokens=5, on_step=trace.note))
    tab = opened(page(trace.history(), tokenizer, talk[0].stats(), HOSTILE))
    assert tab.evaluate(TEXT) == visible(tokenizer.decode([*tokens, *torn]))
    assert tab.locator("h1").text_content() == visible(HOSTILE)
    assert tab.locator("img, b:not(.legend b), script").count() == 1
    assert tab.evaluate("document.scripts[0].textContent.includes('use strict')")


def test_it_fits_a_phone_and_both_schemes(opened) -> None:
    talk = session()
    talk.read(DOCUMENT)
    text = page(asked(talk, "who?"), speller(), talk.stats, "who?")
    for scheme in ("light", "dark"):
        tab = opened(text, viewport={"width": 360, "height": 700}, color_scheme=scheme)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        colours = tab.evaluate(COLOURS)
        for front, behind in (("ink", "deep"), ("ink", "wash"), ("faint", "paper"), ("mark", "paper")):
            assert contrast(colours[front], colours[behind]) >= 4.5, (scheme, front, behind)


COLOURS = """() => Object.fromEntries(["paper", "ink", "faint", "deep", "mark", "wash"].map(name =>
    [name, getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim()]))"""


def contrast(one: str, other: str) -> float:
    """As WCAG counts it, of two colours such as #17191d."""
    bright, dark = sorted(map(luminance, (one, other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [byte / 255 for byte in bytes.fromhex(colour[1:])]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def long_history(length: int, steps: int) -> History:
    """Of a long text in which no two neighbours are equally deep, and as many tokens come back as may."""
    rng, tokenizer = np.random.default_rng(0), byte_level()
    words = tokenizer.encode("The keeper of the harbour lights two lamps, and the green one first.\n")
    tokens = (words * (length // len(words) + 1))[:length]
    depth = rng.integers(1, 5, size=length)
    changes = []
    for number in range(steps):
        back = rng.choice(length, 7, replace=False)
        changes.append(Change(np.array([*back, length + number]), np.full(8, 4)))
    edges = (0, 9, 14, 20, 28)
    return History((*tokens, *tokens[:steps]), edges, 0, length, np.array([], int), depth, tuple(changes), tokens[0])


def test_sixteen_thousand_tokens_do_not_freeze_it(opened) -> None:
    """The worst case, which no real document is: nearly every token is a part of its own."""
    history = long_history(16384, 256)
    stats = LazyStats("lazy", "9:0.5", 16384, 16384, 16640, 1.0, (1, 1, 1), (16640, 1, 1, 1), 0.5, 1792, 0.1, 0, 0)
    start = time.perf_counter()
    text = page(history, byte_level(), stats)
    made = time.perf_counter()
    tab = opened(text)
    tab.evaluate(FRAME)
    loaded = time.perf_counter()
    move = "n => {document.getElementById('step').value = n; document.getElementById('step').oninput()}"
    moved = [tab.evaluate(f"async n => {{const t = performance.now(); ({move})(n); await ({FRAME})(); "
                          "return performance.now() - t}", n) for n in (0, 1, 2, 128, 255)]  # fmt: skip
    print(f"{len(text):,} bytes, made {made - start:.2f} s, opened {loaded - made:.2f} s, moved {moved} ms")
    assert loaded - made < 10 and max(moved) < 1000


FRAME = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
