"""A scorer of one's own: which tokens a cut lets through is one expression."""

from lazymlx import LazyConfig, Scorer, Session, attention, demo, load


class Loudest(Scorer):
    """A token counts as much as the one head and the one query that look at it most, not as much as their average."""

    def __call__(self, queries, keys, visible):
        return attention(queries, keys, visible).max(axis=(0, 1))


def main(document: str, question: str) -> str:
    model, tokenizer = load(str(demo.MODEL))
    session = Session(model, tokenizer, lazy=LazyConfig("8:0.1", scorer=Loudest(), min_tokens=0))
    session.read(document)
    answer = "".join(response.text for response in session.ask(question, max_tokens=40)).strip()
    print(answer, session.stats, sep="\n")
    return answer


if __name__ == "__main__":
    main(demo.document(), "Who or what was the keeper of Sorvanel?")
