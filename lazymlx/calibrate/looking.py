"""Maps for a calibration: for which cuts, of which rank, and fitted to which text.

The text is made as the prompts of a calibration are, of every kind, and of conversations: prose, code, JSON, tables,
pairs, examples, dialogue. Prose is the embedded document and made-up notices, code is this package's own (both under
the project's licence), and texts of the user's own stand in the place of ours.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from time import perf_counter

import mlx.core as mx

from ..engine.model import Model
from ..eval.encoding import Encoder
from ..nn.maps import R2, CutMap, Maps, rank_of
from .fit import HELD_EVERY, fit_maps
from .kinds import KINDS, OVERHEAD
from .material import Material
from .plan import CalibrationPlan

CHUNK = 1024  # tokens
TOKENS_A_VALUE = 40  # of text, for each value of a hidden state
FIRST, LAST, MOST_CUTS = 0.2, 0.8, 10  # cuts that are considered: from where to where in the depth, and how many
MOST_STATES = 3 << 30  # bytes of hidden states in one pass over the text
A_CUT = 0.2  # of the time of reading the text, that each cut takes beside it

OnShare = Callable[[float], None]


def cuts_to_try(layers: int) -> tuple[int, ...]:
    """Where a schedule may cut, if it is chosen by looking ahead."""
    first, last = max(round(layers * FIRST), 1), min(max(round(layers * LAST), 1), layers - 1)
    return tuple(range(first, last + 1, max(-(-(last - first) // (MOST_CUTS - 1)), 1)))


def fitting_text(encoder: Encoder, tokens: int, plan: CalibrationPlan) -> list[list[int]]:
    """Chunks of some `tokens` in all, of every kind in turn; in another order each time, so that every kind is held out
    now and then."""
    material = Material(encoder.count, f"text of {plan.seed}", plan.texts)
    budget = max(min(CHUNK, tokens // (2 * HELD_EVERY)), 2 * OVERHEAD) - OVERHEAD
    kinds, chunks, had = [*KINDS.values(), dialogue], list[list[int]](), 0
    while had < tokens:
        for kind in material.rng.sample(kinds, len(kinds)):
            chunks.append(encoder.prompt("\n\n".join(kind(material, budget))).tokens)
            had += len(chunks[-1])
    return chunks


def dialogue(m: Material, budget: int) -> tuple[str, str]:
    """People who tell each other what happened."""
    names = [m.name() for _ in range(3)]
    said = m.lines(budget, lambda: f'{m.rng.choice(names)}: "{m.notice()}"')
    return "\n".join(said), f"What does {names[0]} say?"


class Fitting:
    """What is fitted for a model, before it is.

    Attributes:
        cuts: layers that a schedule may cut at.
        chunks: the text.
    """

    def __init__(self, model: Model, encoder: Encoder, plan: CalibrationPlan):
        self.model, self.cuts = model, cuts_to_try(len(model.layers))
        self.chunks = fitting_text(encoder, TOKENS_A_VALUE * model.hidden_size, plan)
        states = self.tokens * model.hidden_size * model.dtype.size
        at_a_time = max(MOST_STATES // states - 1, 1)
        self.passes = [self.cuts[i : i + at_a_time] for i in range(0, len(self.cuts), at_a_time)]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.chunks))

    def minutes(self) -> float:
        """About how long `run` will take, from reading a first chunk."""
        chunk = mx.array([self.chunks[0]])
        mx.eval(self.model.dense(self.model.embedded(chunk)))  # compiles
        start = perf_counter()
        mx.eval(self.model.dense(self.model.embedded(chunk)))
        one_pass = (perf_counter() - start) * len(self.chunks) / 60
        return one_pass * (len(self.passes) + A_CUT * len(self.cuts))

    def run(self, fingerprint: str, on_share: OnShare = lambda share: None) -> Maps:
        """The maps.

        Args:
            fingerprint: of the model.
            on_share: called with the share that is done; may raise to stop.

        Raises:
            MapsError: see `fit_maps`.
        """
        rank, found = rank_of(self.model), dict[int, CutMap]()
        for number, cuts in enumerate(self.passes):

            def report(share: float, before: int = number) -> None:
                on_share((before + share) / len(self.passes))

            maps = fit_maps(self.model, self.chunks, cuts, fingerprint=fingerprint, rank=rank, progress=report)
            found |= maps.cuts
        return Maps(fingerprint, found, maps.bits)


def trusted(maps: Maps) -> Maps | None:
    """Those of the cuts that explain something on text that was held out: looking ahead over any others costs more than
    it finds."""
    cuts = [cut for cut, found in maps.cuts.items() if min(_mean(found.r2)) > 0]
    return maps.only(cuts) if cuts else None


def _mean(r2: Sequence[R2]) -> R2:
    return R2(fmean(each.keys for each in r2), fmean(each.values for each in r2))


def sentence(maps: Maps) -> str:
    """How good maps are, for a person."""
    each = [(cut, cut + n, r2) for cut, found in maps.cuts.items() for n, r2 in enumerate(found.r2)]
    cut, layer, worst = min(each, key=lambda entry: min(entry[2]))
    keys, values = _mean([r2 for _, _, r2 in each])
    return (
        f"maps for the cuts at {', '.join(map(str, maps.cuts))} explain {keys:.0%} of the variance of keys and "
        f"{values:.0%} of that of values on held-out text of the same sorts, maybe far less of others (least: "
        f"layer {layer} from the cut at {cut}, {worst.keys:.0%} and {worst.values:.0%}); {maps.nbytes / 1e6:.0f} MB"
    )


def r2_record(maps: Maps) -> dict[int, list[list[float]]]:
    """How good they are, ready for JSON: for each cut and layer, keys and values."""
    return {cut: [[round(part, 4) for part in r2] for r2 in found.r2] for cut, found in maps.cuts.items()}
