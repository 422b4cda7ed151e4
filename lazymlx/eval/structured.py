"""Tasks about structure: key-value retrieval, variables that copy one another, and labels learnt from examples."""

from .invented import WORDS
from .passages import passages
from .work import Item, Work

VALUE_TOKENS = 24
LINE_TOKENS, DRAWS = 8, 30  # of an assignment; of lines to find one that fits the room
COPIES = 0.25  # share of assignments that copy an earlier variable
FEWEST_WORDS, MOST_WORDS = 6, 15  # of a text to be labelled


def key_value(work: Work) -> Item:
    """The value of one key among many: every pair looks like every other (lost-in-the-middle's kv-retrieval)."""
    digits = work.rng.randint(6, 12)
    opening, question = "JSON data:\n{", 'The value of key "{key}"?'
    room = work.room_beside(question.format(key=work.hexadecimal(digits))) - work.encoder.count(opening)
    pairs: dict[str, str] = {}
    while True:
        key, value = work.hexadecimal(digits), work.hexadecimal(digits)
        size = work.encoder.count(_pair(key, value))
        if size > room:
            break
        pairs[key] = value
        room -= size
    *asked, last = pairs
    room += work.encoder.count(_pair(last, pairs[last]))
    while work.encoder.count(_pair(last, pairs[last])) < room:
        pairs[last] += work.hexadecimal(1)
    key = work.rng.choice(asked)
    context = opening + "".join(_pair(k, v) for k, v in pairs.items())[1:] + " "
    return Item(context, (question.format(key=key),), (pairs[key],), "contains", VALUE_TOKENS)


def _pair(key: str, value: str) -> str:
    return f' "{key}": "{value}",\n'


def variables(work: Work) -> Item:
    """The value of any variable: a quarter of them copy another one."""
    return _tracing(work, least_hops=0)


def chains(work: Work) -> Item:
    """The value of a variable that copies another one, perhaps over several steps (RULER's variable tracing)."""
    return _tracing(work, least_hops=1)


def _tracing(work: Work, least_hops: int) -> Item:
    opening, question = "```python\n", "print({name})"
    room = work.room_beside(question.format(name=_variable(work))) - work.encoder.count(opening)
    values: dict[str, str] = {}
    hops: dict[str, int] = {}
    context = opening
    while room > 0 or max(hops.values()) < least_hops:
        name, source = _assignment(work, list(values), room)
        values[name], hops[name] = (values[source], hops[source] + 1) if source in values else (source, 0)
        context += _line(name, source)
        room -= work.encoder.count(_line(name, source))
    name = work.rng.choice([name for name in values if hops[name] >= least_hops])
    return Item(context.rstrip(), (question.format(name=name),), (values[name].strip('"'),), "contains", VALUE_TOKENS)


def _assignment(work: Work, known: list[str], room: int) -> tuple[str, str]:
    """A new variable and what it is assigned: of several, one that leaves no room, or enough for another line."""
    draws: dict[str, tuple[int, str]] = {}  # by name: how far it will overshoot, and what it is assigned
    while len(draws) < DRAWS:
        name = _variable(work)
        source = work.rng.choice(known) if known and work.rng.random() < COPIES else _value(work)
        rest = room - work.encoder.count(_line(name, source))
        if name in known:
            continue
        if rest == 0 or rest >= LINE_TOKENS:
            return name, source
        draws[name] = (-rest if rest < 0 else LINE_TOKENS - rest, source)
    name = min(draws, key=lambda draw: draws[draw][0])
    return name, draws[name][1]


def _line(name: str, source: str) -> str:
    return f"{name} = {source}\n"


def _variable(work: Work) -> str:
    return f"{work.rng.choice(WORDS)}_{work.rng.randrange(1000)}"


def _value(work: Work) -> str:
    return str(work.rng.randrange(10, 99999)) if work.rng.random() < 0.6 else f'"{work.name()}"'


def labels(work: Work) -> Item:
    """Label a text as examples were labelled: by one word in it, whose label only the examples tell."""
    names = work.names(work.rng.randint(3, 6))
    telling = work.rng.sample(WORDS, len(names) * 4)
    words = {name: telling[4 * k : 4 * k + 4] for k, name in enumerate(names)}
    label = work.rng.choice(names)
    word = work.rng.choice(words[label])
    opening, question = "Label each text.", f"Label this text: {_text(work, word)}"
    examples = [_example(_text(work, word), label)]  # the word that tells is in an example
    room = work.room_beside(question) - work.encoder.count(opening + examples[0])
    while room > 0:
        name = work.rng.choice(names)
        text = _text(work, work.rng.choice(words[name]))
        size = work.encoder.count(_example(text, name))
        if size > room:  # the last one: the one before it goes on as far as there is room
            examples[-1] = _grown(work, examples[-1], text, room)
            break
        examples.append(_example(text, name))
        room -= size
    work.rng.shuffle(examples)
    return Item(opening + "".join(examples), (question,), (label,), "exact", VALUE_TOKENS)


def _example(text: str, label: str) -> str:
    return f"\nText: {text}\nLabel: {label}"


def _grown(work: Work, example: str, text: str, room: int) -> str:
    """An example whose text has words of another one before it, `room` tokens of them."""
    head, _, tail = example.partition(" ")
    more = []
    for word in text.split():
        if room <= 0:
            break
        more.append(word)
        room -= work.encoder.word(word)
    return " ".join([head, *more, tail])


def _text(work: Work, word: str) -> str:
    """Some words of a passage, with `word` among them."""
    source = work.rng.choice(passages()).text.split()
    count = work.rng.randint(FEWEST_WORDS, MOST_WORDS)
    start = work.rng.randrange(len(source) - count)
    words = source[start : start + count]
    words.insert(work.rng.randint(1, count - 1), word)
    return " ".join(words)
