"""One question about a long document, with several schedules side by side."""

from lazymlx import LazyConfig, demo, load, stream_generate

SCHEDULES = ("dense", "8:0.5", "8:0.25", "8:0.1,10:0.05")


def main(document: str, question: str) -> dict[str, str]:
    model, tokenizer = load(str(demo.MODEL))
    message = {"role": "user", "content": f"{document}\n\nQuestion: {question}"}
    prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True)

    answers = {}
    print(f"{'schedule':16} {'TTFT':>8} {'computed':>9}  answer")
    for schedule in SCHEDULES:
        cache = model.make_cache(LazyConfig(schedule, min_tokens=0))
        responses = list(stream_generate(model, tokenizer, prompt, max_tokens=40, prompt_cache=cache))
        answers[schedule] = "".join(response.text for response in responses).strip()
        stats = responses[-1].lazy
        print(f"{schedule:16} {stats.ttft_s:7.2f}s {stats.computed_fraction:9.1%}  {answers[schedule]}", flush=True)
    return answers


if __name__ == "__main__":
    main(demo.document(), "Who or what was the keeper of Sorvanel?")
