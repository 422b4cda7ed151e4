"""Ask `lazymlx serve` about a document as any OpenAI client does; the document is read once, by the first question.

Start the server in another terminal (`lazymlx serve`), and install the client: pip install openai.
"""

from openai import OpenAI

from lazymlx import demo


def main(document: str, questions: list[str], base_url: str = "http://127.0.0.1:8080/v1", api_key: str = "any") -> None:
    client, messages = OpenAI(base_url=base_url, api_key=api_key), []
    for question in questions:
        content = question if messages else f"{document}\n\nQuestion: {question}"
        messages.append({"role": "user", "content": content})
        reply = client.chat.completions.create(model="any", messages=messages, max_tokens=40, temperature=0)
        messages.append({"role": "assistant", "content": reply.choices[0].message.content})

        usage = reply.usage
        assert usage is not None and usage.prompt_tokens_details is not None
        print(f"{question}\n{messages[-1]['content']}")
        print(f"  {usage.prompt_tokens} tokens, {usage.prompt_tokens_details.cached_tokens} of them read before\n")


if __name__ == "__main__":
    main(demo.document(), [question["question"] for question in demo.questions()[:3]])
