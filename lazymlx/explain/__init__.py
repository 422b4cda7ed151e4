"""What an answer was computed from: recorded step by step, and shown as one HTML page.

trace = Trace()
for response in stream_generate(model, tokenizer, prompt, on_step=trace.note):
    print(response.text, end="")
Path("answer.html").write_text(page(trace.history(), tokenizer, response.lazy), encoding="utf-8")
"""

from .page import page
from .recording import History, Trace

__all__ = ["History", "Trace", "page"]
