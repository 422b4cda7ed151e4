"""From a document to an answer, with the model and the document that come with lazymlx."""

from lazymlx import demo, load, stream_generate


def main(document: str, question: str) -> str:
    model, tokenizer = load(str(demo.MODEL))
    message = {"role": "user", "content": f"{document}\n\nQuestion: {question}"}
    prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True)

    answer = ""
    for response in stream_generate(model, tokenizer, prompt, max_tokens=40):
        print(response.text, end="", flush=True)
        answer += response.text
    print(f"\n\n{response.lazy}")
    return answer


if __name__ == "__main__":
    main(demo.document(), "What is the access code for the Belmorin project?")
