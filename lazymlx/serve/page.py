"""`page`: the page at `/`, one file that fetches nothing but this server's own answers."""

import base64
import hashlib
import html
from functools import cache
from pathlib import Path


@cache
def page(model: str) -> str:
    """The page, which lets no script run but its own."""
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    filled = {"POLICY": policy, "MODEL": html.escape(model), "STYLE": _part("page.css"), "SCRIPT": script}
    text = _part("page.html")
    for name, value in filled.items():
        text = text.replace(f"<!--{name}-->", value)
    return text


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
