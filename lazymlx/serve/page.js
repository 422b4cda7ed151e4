"use strict";
const byId = (id) => document.getElementById(id);
const headers = () => ({ "Content-Type": "application/json", Authorization: `Bearer ${byId("key").value}` });
let messages = [], text = "", stopping = null;

// A response of this server, or what it says against it.
async function fetched(path, options = {}) {
  const response = await fetch(path, { headers: headers(), ...options });
  if (response.status === 401) byId("door").hidden = false;
  if (!response.ok) throw new Error((await response.json()).error.message);
  return response;
}

function paragraph(kind, content) {
  const made = document.createElement("p");
  made.className = kind;
  made.dir = "auto";
  made.textContent = content;
  return byId("talk").appendChild(made);
}

async function take(file) {
  try {
    const response = await fetched("/lazymlx/document", { method: "POST", body: file });
    begin();
    text = (await response.json()).text;
    byId("named").textContent = `${file.name}, ${text.length.toLocaleString("en")} characters`;
    byId("state").textContent = "";
  } catch (error) {
    byId("state").textContent = error.message;
  }
}

function begin() {
  messages = [];
  byId("talk").replaceChildren();
}

// The events of a stream, as they come.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: {")) yield JSON.parse(part.slice(6));
    }
  }
}

async function ask(question) {
  const content = messages.length || !text ? question : `${text}\n\nQuestion: ${question}`;
  const asked = [...messages, { role: "user", content }];
  paragraph("asked", question);
  const said = paragraph("said", "");
  stopping = new AbortController();
  waiting(true);
  try {
    const body = { messages: asked, stream: true, return_progress: true, explain: true, temperature: 0,
      stream_options: { include_usage: true } };
    const options = { method: "POST", body: JSON.stringify(body), signal: stopping.signal };
    for await (const event of events(await fetched("/v1/chat/completions", options))) {
      if (event.error) throw new Error(event.error.message);
      show(event, said);
    }
    byId("state").textContent = "";
  } catch (error) {
    byId("state").textContent = error.name === "AbortError" ? "stopped" : error.message;
  }
  messages = [...asked, { role: "assistant", content: said.textContent }];
  waiting(false);
  list();
}

function show(event, said) {
  const progress = event.prompt_progress, [choice] = event.choices;
  if (progress) byId("reading").value = (progress.processed - progress.cache) / (progress.total - progress.cache);
  if (choice?.delta.content) {
    said.textContent += choice.delta.content;
    byId("reading").hidden = true;
  }
  if (event.usage) cost(event.usage);
}

function cost(usage) {
  const lazy = usage.lazymlx, share = `${(lazy.computed_fraction * 100).toFixed(0)}% of the dense work`;
  const cached = usage.prompt_tokens_details.cached_tokens.toLocaleString("en");
  const tokens = `${usage.prompt_tokens.toLocaleString("en")} tokens, ${cached} of them read before`;
  const line = paragraph("cost", `${tokens} · first word after ${lazy.ttft_s.toFixed(2)} s · ${share} · `);
  const link = line.appendChild(document.createElement("a"));
  link.textContent = "what was read";
  link.href = `/lazymlx/explained/${lazy.explained}`;
  link.target = "_blank";
}

function waiting(is) {
  byId("send").disabled = is;
  byId("stop").hidden = !is;
  byId("reading").hidden = !is;
  byId("reading").value = 0;
}

async function list() {
  const kept = await (await fetched("/lazymlx/conversations")).json();
  byId("kept").replaceChildren(...kept.map((one) => {
    const row = document.createElement("tr");
    const share = one.computed === null ? "" : `${(one.computed * 100).toFixed(0)}%`;
    for (const cell of [one.title, one.tokens.toLocaleString("en"), (one.bytes / 1e6).toFixed(1), share]) {
      row.appendChild(document.createElement("td")).textContent = cell;
    }
    return row;
  }));
}

const drop = byId("drop");
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files[0]); };
byId("file").onchange = (event) => take(event.target.files[0]);
byId("new").onclick = () => { begin(); text = ""; byId("named").textContent = ""; };
byId("stop").onclick = () => stopping.abort();
byId("door").onsubmit = (event) => { event.preventDefault(); byId("door").hidden = true; list(); };
byId("question").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); byId("ask").requestSubmit(); } };
byId("ask").onsubmit = (event) => {
  event.preventDefault();
  const question = byId("question").value.trim();
  if (question && !byId("send").disabled) { byId("question").value = ""; ask(question); }
};
list().catch(() => {});
