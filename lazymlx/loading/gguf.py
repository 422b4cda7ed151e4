"""A Llama in one GGUF file becomes a folder that mlx-lm and `load` read.

The weights are unpacked to float16, so that whoever wants them in 4 or 8 bits packs them as any other model's. MLX
reads the file; what is left to do is names, the order of the rotary rows, and the tokenizer.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ..errors import ModelError
from .model_config import Entries

GROUP = 32  # weights that share a scale, in every kind of tensor that MLX leaves packed
SPECIAL = (3, 4)  # token types: control, and defined by the model's authors

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def unpack_gguf(source: Path, folder: Path) -> None:
    """Write the model in a GGUF file to a folder, with config.json last: it says that the rest is there.

    Raises:
        ModelError: it is another architecture, or has another tokenizer than SmolLM's.
    """
    loaded: Any = mx.load(str(source), return_metadata=True)  # for a GGUF a pair, which its types do not say
    tensors, entries = loaded
    entries = {name: to_python(value) for name, value in entries.items()}
    kind = entries.get("general.architecture"), entries.get("tokenizer.ggml.pre")
    if kind != ("llama", "smollm"):
        raise ModelError(f"model: {source} is {kind[0]} with tokenizer {kind[1]}; expected llama with smollm's")
    weights = read_weights(tensors, entries)
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    read_tokenizer(entries).save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", tokenizer_config(entries))
    write(folder / "config.json", config(entries, tied="lm_head.weight" not in weights))


def to_python(value: Any) -> Any:
    return value.tolist() if isinstance(value, mx.array) else value


def write(path: Path, content: Entries) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_weights(tensors: dict[str, mx.array], entries: Entries) -> dict[str, mx.array]:
    heads = {"attn_q": entries["llama.attention.head_count"], "attn_k": entries["llama.attention.head_count_kv"]}
    weights = {}
    for name in tensors:
        if not name.endswith(".weight"):
            continue  # scales and biases go with their weights
        stem = name.removesuffix(".weight")
        block, part = stem.rsplit(".", 1) if "." in stem else ("", stem)
        w = dequantized(tensors, stem).astype(mx.float16)
        if part in heads:
            w = halves(w, heads[part])
        place = f"model.layers.{block.removeprefix('blk.')}." if block else ""
        weights[f"{place}{NAMES[part]}.weight"] = w
    return weights


def dequantized(tensors: dict[str, mx.array], stem: str) -> mx.array:
    w, scales = tensors[f"{stem}.weight"], tensors.get(f"{stem}.scales")
    if scales is None:
        return w
    bits = 32 * w.shape[-1] // (GROUP * scales.shape[-1])
    return mx.dequantize(w, scales, tensors[f"{stem}.biases"], group_size=GROUP, bits=bits)


def halves(w: mx.array, heads: int) -> mx.array:
    """A head's rows as mlx-lm rotates them, first halves then second ones; GGUF files hold them in pairs."""
    size = w.shape[0] // heads
    return w.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def config(entries: Entries, tied: bool) -> Entries:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": entries["llama.embedding_length"],
        "num_hidden_layers": entries["llama.block_count"],
        "intermediate_size": entries["llama.feed_forward_length"],
        "num_attention_heads": entries["llama.attention.head_count"],
        "num_key_value_heads": entries["llama.attention.head_count_kv"],
        "rms_norm_eps": entries["llama.attention.layer_norm_rms_epsilon"],
        "vocab_size": len(entries["tokenizer.ggml.tokens"]),
        "max_position_embeddings": entries["llama.context_length"],
        "rope_theta": entries["llama.rope.freq_base"],
        "tie_word_embeddings": tied,
        "torch_dtype": "float16",
        "bos_token_id": entries["tokenizer.ggml.bos_token_id"],
        "eos_token_id": entries["tokenizer.ggml.eos_token_id"],
    }


def read_tokenizer(entries: Entries) -> Tokenizer:
    tokens, kinds = entries["tokenizer.ggml.tokens"], entries["tokenizer.ggml.token_type"]
    merges = [(left, right) for left, right in (merge.split(" ", 1) for merge in entries["tokenizer.ggml.merges"])]
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    special = (token for token, kind in zip(tokens, kinds, strict=True) if kind in SPECIAL)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def tokenizer_config(entries: Entries) -> Entries:
    tokens = entries["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokens[entries["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[entries["tokenizer.ggml.padding_token_id"]],
        "clean_up_tokenization_spaces": False,
        "model_max_length": entries["llama.context_length"],
        "chat_template": entries["tokenizer.chat_template"],
    }
