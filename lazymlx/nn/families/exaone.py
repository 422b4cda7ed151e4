"""EXAONE: version 4 normalises heads, has windowed layers, and no positions in the others if there are any."""

from typing import Any

from ..attention import Attention, Variant, heads_normed
from .family import Family, Places


def exaone3(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(output="out_proj"))


def exaone4(args: Any, index: int, theirs: Any) -> Attention:
    window = args.sliding_window if theirs.is_local else None
    return Attention(
        args, theirs, Variant(project=heads_normed, rope="rope" if theirs.use_rope else None, window=window)
    )


def exaone_moe(args: Any, index: int, theirs: Any) -> Attention:
    window = args.sliding_window if theirs.is_sliding_window else None
    return Attention(
        args, theirs, Variant(project=heads_normed, rope="rope" if theirs.use_rope else None, window=window)
    )


EXAONE = {
    "exaone": Family(
        "EXAONE 3, 3.5",
        "exaone",
        exaone3,
        places=Places("transformer", "wte", "h", "attn.attention", "ln_f"),
    ),
    "exaone4": Family("EXAONE 4", "exaone4", exaone4, swiglu=True),
    "exaone_moe": Family("K-EXAONE", "exaone_moe", exaone_moe),
}
