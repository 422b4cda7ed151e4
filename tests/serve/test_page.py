"""The page at `/`: in a browser without a window, asked about a document that was dropped on it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import browser
from scripted import write_scripted_model

httpx = pytest.importorskip("httpx")

DROP = """async ([name, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
}"""


@pytest.fixture
def tab(serve: Callable, tmp_path: Path) -> Iterator:
    complaints = []
    with browser() as chromium:
        tab = chromium.new_page()
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(serve(write_scripted_model(tmp_path / "model", ["The ", "green ", "one."])).address)
        yield tab
    assert not complaints


def test_it_asks_for_the_key_reads_a_document_streams_an_answer_and_shows_what_is_kept(tab) -> None:
    tab.locator("#door").wait_for(state="visible")
    tab.fill("#key", "secret")
    tab.click("#door button")
    tab.evaluate(DROP, ["harbour.txt", "The keeper lights the <b>green</b> lamp. " * 50])
    tab.locator("#named", has_text="harbour.txt, 2,0").wait_for()
    tab.fill("#question", "Which lamp?")
    tab.click("#send")
    tab.locator(".cost", has_text="of the dense work").wait_for(timeout=60_000)
    assert tab.locator(".said").inner_text() == "The green one."
    tab.locator("#kept td", has_text="The keeper lights the <b>green</b>").wait_for()
    with tab.expect_popup() as explained:
        tab.click(".cost a")
    assert "lamp" in explained.value.locator("#text").inner_text()
    tab.fill("#question", "And then?")
    tab.press("#question", "Enter")
    tab.locator(".cost").nth(1).wait_for(timeout=60_000)
    assert ", 0 of them read before" not in tab.locator(".cost").nth(1).inner_text()


def test_a_document_s_text_is_handed_out_whatever_it_comes_in(address: str) -> None:
    pytest.importorskip("markdownify")
    key = {"Authorization": "Bearer secret"}
    page = "<html><body><h1>Lamps</h1><p>Green.</p></body></html>"
    done = httpx.post(f"{address}/lazymlx/document", content=page, headers=key)
    assert "# Lamps" in done.json()["text"]
    refused = httpx.post(f"{address}/lazymlx/document", content=b"%PDF-1.4 broken", headers=key)
    assert refused.status_code == 400 and "document" in refused.json()["error"]["message"]


def test_without_the_key_nothing_is_told(address: str) -> None:
    for path in ("/lazymlx/conversations", "/v1/models"):
        assert httpx.get(address + path).status_code == 401
    for name in ("", "x"):
        assert httpx.get(f"{address}/lazymlx/explained/{name}").status_code == 404
    assert "secret" not in httpx.get(address).text


def test_what_is_kept_is_told(address: str) -> None:
    key = {"Authorization": "Bearer secret"}
    body = {"messages": [{"role": "user", "content": "Which lamps are kept?"}], "max_tokens": 2}
    httpx.post(f"{address}/v1/chat/completions", content=json.dumps(body), headers=key, timeout=20)
    newest = httpx.get(f"{address}/lazymlx/conversations", headers=key).json()[0]
    assert newest["title"] == "Which lamps are kept?" and newest["tokens"] > 5 and newest["bytes"] > 0
