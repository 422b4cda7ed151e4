"""What looking ahead costs in operations: counted product by product, and at the sizes of known models."""

import pytest

from lazymlx.config import LazyConfig
from lazymlx.costs.flops import Looking, Sizes, ideal_speedup, looking_flops, prefill_flops
from lazymlx.schedule import Cut

QWEN = Sizes(layers=28, D=1536, D_ff=8960, H=12, H_kv=2, D_h=128, vocab=151936)
LLAMA_2_7B = Sizes(layers=32, D=4096, D_ff=11008, H=32, H_kv=32, D_h=128, vocab=32000)
CUTS = (Cut(10, 0.5), Cut(14, 0.2))
SMALL = Sizes(layers=5, D=8, D_ff=12, H=2, H_kv=1, D_h=4, vocab=10)


def counted(cuts: tuple[Cut, ...], length: int, kept: list[int], rows: int, seen: bool, rank: int | None) -> float:
    """Multiplications and additions of each product, layer by layer; a look goes through half of the layers."""
    total, wide = 0, 2 * SMALL.H_kv * SMALL.D_h
    fill = 2 * SMALL.D * wide if rank is None else 2 * SMALL.D * rank + 2 * rank * wide
    projections = 2 * SMALL.D * (2 * SMALL.H + 2 * SMALL.H_kv) * SMALL.D_h + 2 * 3 * SMALL.D * SMALL.D_ff
    a_pair = 2 * 2 * SMALL.H * SMALL.D_h  # its score, and its value
    for cut in cuts:
        for _ in range(-(-(SMALL.layers - cut.layer) // 2)):
            total += length * fill + rows * (projections + a_pair * (length + 0.5))
    stops = [*(cut.layer for cut in cuts[1:]), SMALL.layers]
    for cut, stop, through in zip(cuts, stops, kept, strict=True):
        for _ in range(cut.layer, stop):
            total += seen * (length - through) * (fill + a_pair * rows)
    return total


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("rank", [None, 3])
def test_filling_and_looking_are_counted_product_by_product(seen: bool, rank: int | None) -> None:
    cuts, kept = (Cut(1, 0.5), Cut(3, 0.2)), [50, 20]
    found = looking_flops(SMALL, cuts, 100, kept, Looking(6, seen, rank))
    assert found == pytest.approx(counted(cuts, 100, kept, 6, seen, rank))


def test_nothing_is_counted_where_all_go_through() -> None:
    assert looking_flops(SMALL, (Cut(1, 1.0),), 100, [100], Looking(6, True, None)) == 0


def test_it_costs_less_than_a_tenth_where_key_heads_are_shared() -> None:
    without, seen, choosing = (
        ideal_speedup(QWEN, CUTS, 4096, looking=looking)
        for looking in (None, Looking(64, True, None), Looking(64, False, None))
    )
    assert without == pytest.approx(1.942, abs=0.01)
    assert 0.92 * without < seen < choosing < 0.97 * without


def test_low_rank_maps_of_llama_2_7b_cost_little_of_a_prefill() -> None:
    """Filling once from a cut at layer 12: the bound is 3%, and a full map would be beyond it."""
    cuts, kept = (Cut(12, 0.2),), [800]
    prefill = prefill_flops(LLAMA_2_7B, [4096] * 32)
    low, full = (looking_flops(LLAMA_2_7B, cuts, 4096, kept, Looking(0, False, rank)) for rank in (512, None))
    assert low < 0.015 * prefill < 0.045 * prefill < full


def test_a_configuration_that_does_not_look_costs_nothing() -> None:
    assert Looking.of(LazyConfig("10:0.5").resolve(28), None) is None
