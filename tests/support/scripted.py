"""A model that answers whatever it is asked with the same text, and a chat template that knows tools."""

import json
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
from model_folder import CONFIG, write_model

ASSISTANT, END = 3, 5  # tokens of the embedded model's tokenizer
TEMPLATE = """{{ bos_token }}{% if tools %}<|system|>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}<|user|>
{{ m.content }}{% elif m.role == 'assistant' %}<|assistant|>{{ m.content }}{% for call in m.tool_calls or [] %}\
{% set tool_call = call.function %}<tool_call>{"name": "{{ tool_call.name }}", "arguments": \
{{ tool_call.arguments | tojson }}}</tool_call>{% endfor %}<|end|>{% else %}<|system|>
{{ m.role }}: {{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def write_scripted_model(folder: Path, pieces: Sequence[str]) -> Path:
    """A model that says `pieces`, each a token of its own, and ends.

    Its layers add nothing to a token's embedding, which the head maps to the next token.
    """
    first = CONFIG["vocab_size"]
    write_model(folder, vocab_size=first + len(pieces), tie_word_embeddings=False)
    weights = dict(mx.load(str(folder / "model.safetensors")))
    said = [ASSISTANT, *range(first, first + len(pieces)), END]
    for name, w in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight", "lm_head.weight")):
            weights[name] = mx.zeros_like(w)
    directions = mx.eye(CONFIG["hidden_size"])[: len(pieces) + 1]
    weights["model.embed_tokens.weight"][mx.array(said[:-1])] = directions
    weights["lm_head.weight"][mx.array(said[1:])] = 20 * directions  # whatever the temperature
    weights["model.norm.weight"] = mx.ones_like(weights["model.norm.weight"])
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tokenizer["added_tokens"] += [{"id": first + i, "content": piece, **plain} for i, piece in enumerate(pieces)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder
