"""What one answer cost: `LazyStats`, the numbers behind every claim of a saving."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class LazyStats:
    """Counts for one conversation, as it stands after an answer.

    Attributes:
        mode: "lazy"; "dense" when the newest prompt left nothing behind, and every token was computed in every layer.
        schedule: the cuts, as "layer:keep,..."; "dense" if there are none.
        prompt_tokens: tokens of the newest prompt or question.
        prompt_end: every position up to the newest prompt's end: what its selection chose from.
        context_tokens: every position so far, generated ones included.
        ttft_s: seconds from the prompt's arrival to the first token; None before there is one.
        kept: for each cut, how many tokens the newest prompt's selection let through.
        computed: for each stage, how many tokens have been computed in it.
        computed_fraction: token-layers computed, as a share of the dense model's.
        revived: tokens that were left behind by a prompt and computed in a stage later.
        revived_fraction: token-layers computed for them, as a share of the dense model's.
        kv_bytes: allocated for keys and values, in bytes.
        aux_bytes: allocated for the hidden states of tokens left behind, and for what is kept to select them, in bytes.
    """

    mode: str
    schedule: str
    prompt_tokens: int
    prompt_end: int
    context_tokens: int
    ttft_s: float | None
    kept: tuple[int, ...]
    computed: tuple[int, ...]
    computed_fraction: float
    revived: int
    revived_fraction: float
    kv_bytes: int
    aux_bytes: int

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return asdict(self)
