"""The matrix: every sample to every policy, one after the other, so that all work under the same conditions.

The first samples of all tasks and lengths come before the second ones: a run that is cut short has something of
everything. A policy's first answer at a length is not counted, since it compiles.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

from mlx_lm.generate import wired_limit

from ..config import LazyConfig
from ..engine.model import Model
from ..errors import UsageError
from .agreement import Reference, agreement, force, reference
from .encoding import Encoded, Encoder
from .metrics import METRICS
from .policies import POLICIES, Forced, Options, Policy, PolicyAnswer
from .policies.dense import Dense
from .samples import Sample
from .store import Row, Store, key_of
from .tasks import make

EXCERPT = 200  # letters of a question that are stored with its answer


def check_policies(names: Sequence[str], draft: bool) -> None:
    """Refuse names that are no policies, and those that lack their draft model."""
    for name in names:
        if name not in POLICIES:
            raise UsageError(f"--policies: there is no policy {name!r}; policies are {', '.join(POLICIES)}")
        if POLICIES[name].needs_draft and not draft:
            raise UsageError(f"--policies: {name} needs a draft model; name one with --draft-model, or leave it out")


def policies_of(names: Sequence[str], options: Options) -> list[Policy]:
    """The policies at all their points."""
    return [policy for name in names for policy in POLICIES[name].points(options)]


class Generated:
    """The samples of generated tasks, made when they are needed."""

    def __init__(self, tasks: Sequence[str], lengths: Sequence[int], n: int, seed: int, encoder: Encoder):
        self.tasks, self.lengths, self.n, self.seed, self.encoder = tasks, lengths, n, seed, encoder

    def __len__(self) -> int:
        return len(self.tasks) * len(self.lengths) * self.n

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self.n):
            for length in self.lengths:
                for task in self.tasks:
                    yield make(task, length, index, self.seed, self.encoder)


class PreparedSample(NamedTuple):
    """A sample in tokens, and what the dense model says to it."""

    prompts: list[Encoded]
    dense: Reference


class Matrix:
    """Samples x policies.

    Args:
        store: where answers go; those that it holds already are not asked for again.
        after_answer: called with every answer, given now or before.
    """

    def __init__(
        self,
        model: Model,
        encoder: Encoder,
        policies: Sequence[Policy],
        store: Store,
        after_answer: Callable[[Row], None] = lambda row: None,
    ):
        self.model, self.encoder, self.policies, self.store = model, encoder, policies, store
        self.after_answer = after_answer
        self._warm: set[tuple[str, str, int]] = set()

    def run(self, samples: Iterable[Sample], seconds: float | None = None) -> bool:
        """Ask everything, or as many samples as can be begun within a time. Returns whether it was everything."""
        start = perf_counter()
        with wired_limit(self.model):
            for sample in samples:
                if seconds is not None and perf_counter() - start > seconds:
                    return False
                self._ask_all(sample)
        return True

    def _ask_all(self, sample: Sample) -> None:
        asked: PreparedSample | None = None
        for policy in self.policies:
            row = _row(sample, policy)
            if (before := self.store.get(key_of(row))) is not None:
                self._check_same(sample, before.get("question"))
            else:
                asked = asked or self._prepare(sample)
                self._warm_up(sample, policy, asked.prompts[0])
                row |= self._ask(sample, policy, asked)
                self.store.add(row)
            self.after_answer(row)

    def _check_same(self, sample: Sample, question: str | None) -> None:
        """Refuse an earlier answer to what is another question now; generated ones are told by their place alone."""
        if sample.length == 0 and question != question_of(sample):
            raise UsageError(
                f"--resume: line {sample.index} of {sample.task} was another question when it was answered; the file "
                "is not the same, name another folder with --out"
            )

    def _prepare(self, sample: Sample) -> PreparedSample:
        positions = self.model.max_positions
        most = positions - sample.max_tokens if sample.middle_out and positions is not None else None
        first = self.encoder.prompt(sample.message, chat=sample.chat, most=most)
        prompts = [first, *(self.encoder.follow_up(message) for message in sample.follow_ups)]
        self._warm_up(sample, Dense(LazyConfig.dense(), point=""), first)
        return PreparedSample(prompts, reference(self.model, self.encoder, prompts, sample.max_tokens))

    def _warm_up(self, sample: Sample, policy: Policy, prompt: Encoded) -> None:
        shape = (policy.name, policy.point, sample.length)
        if shape not in self._warm:
            self._warm.add(shape)
            policy.answer(self.model, self.encoder.tokenizer, prompt.tokens, 2, prompt.tail)

    def _ask(self, sample: Sample, policy: Policy, asked: PreparedSample) -> Row:
        forced, answers = self._answers(policy, asked, sample.max_tokens)
        first, last = answers[0], answers[-1]
        text = self.encoder.text(last.tokens)
        judged = text.lstrip("\n").split("\n")[0] if sample.first_line else text
        agreed = agreement(asked.dense, forced, text)
        judge = METRICS[sample.metric]
        return {
            "score": judge(judged, sample.references, sample.classes) if sample.references else agreed["f1_to_dense"],
            **agreed,
            "answer": text,
            "references": list(sample.references or (asked.dense.text,)),
            "question": question_of(sample),
            "prompt_tokens": len(asked.prompts[0].tokens),
            "answer_tokens": len(last.tokens),
            "ttft_s": first.ttft_s,
            "total_s": first.total_s,
            "follow_up_ttft_s": last.ttft_s if len(answers) > 1 else None,
            "prefill_fraction": last.prefill_fraction,
            "computed_fraction": last.computed_fraction,
        }

    def _answers(self, policy: Policy, asked: PreparedSample, max_tokens: int) -> tuple[Forced, Sequence[PolicyAnswer]]:
        """What a policy thinks of the dense model's last answer, and what it says itself to each prompt."""
        prompts, dense, stop = asked.prompts, asked.dense, self.encoder.tokenizer.eos_token_ids
        if policy.name == Dense.name:  # it has answered
            return dense.forced, dense.given
        forced = force(policy.begin(self.model, stop), prompts, dense.answers)
        if len(prompts) == 1 and dense.is_as(forced):  # it would say the same, token by token
            return forced, [forced.answer]
        conversation = policy.begin(self.model, stop)
        return forced, [conversation.ask(prompt.tokens, max_tokens, prompt.tail) for prompt in prompts]


def question_of(sample: Sample) -> str:
    """The end of the last question, as it is stored."""
    return (sample.follow_ups or (sample.message,))[-1][-EXCERPT:]


def _row(sample: Sample, policy: Policy) -> Row:
    return {
        "task": sample.task,
        "length": sample.length,
        "index": sample.index,
        "policy": policy.name,
        "point": policy.point,
    }
