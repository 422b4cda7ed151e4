"use strict";
const byId = (id) => document.getElementById(id);
const slider = byId("step"), map = byId("map"), back = byId("back");
const totals = JSON.parse(slider.dataset.totals), revived = JSON.parse(slider.dataset.revived);
const context = totals[0][0], stages = totals[0].length;
const runs = [...document.querySelectorAll("#text span")];
const answer = [...document.querySelectorAll("#answer span")];
const legend = [...document.querySelectorAll(".legend li")];
const count = (n) => n.toLocaleString("en");
const starts = runs.map((run) => Number(run.dataset.p));
const special = new Set(runs.filter((run) => run.classList.contains("special")));
const stories = runs.filter((run) => run.dataset.s).map((run) => {
  const [first, ...events] = run.dataset.s.split(" ");
  return { run, first, events: events.map((event) => event.split(":")) };
});
const depths = runs.map((run) => Number(run.className.match(/\d+/)[0]));
const places = new Map(runs.map((run, place) => [run, place]));

// The state after the answer's token number `step`; 0 is the question.
function show(step) {
  const now = [];
  for (const { run, first, events } of stories) {
    let depth = first, at = null;
    for (const [number, deeper] of events) if (number <= step) [at, depth] = [number, deeper];
    const names = "d" + depth + (special.has(run) ? " special" : "") + (at === null ? "" : " back") + (at == step ? " now" : "");
    if (at == step && at !== null) now.push(run);
    depths[places.get(run)] = Number(depth);
    if (run.className !== names) {
      run.className = names;
      run.dataset.at = at === "0" ? "q" : at;
      run.title = at === null ? "" : at === "0" ? "came back for the question" : "came back at token " + at + " of the answer";
    }
  }
  tell(step, now);
  draw();
}

function tell(step, now) {
  let token = "";
  for (const span of answer) {
    const number = Number(span.dataset.n);
    if (number === step) token = span.textContent;
    span.className = (span.classList.contains("special") ? "special " : "") + (number > step ? "later" : number === step ? "now" : "");
    if (number === step) byId("answer").scrollTop = span.offsetTop - byId("answer").offsetTop - 20;
  }
  const last = totals.length - 1;
  const where = step ? "after token " + step + " of " + last + ": “" + token + "”" : last ? "not yet begun: after the question" : "its first token alone";
  byId("where").textContent = where;
  slider.setAttribute("aria-valuetext", where + ", " + revived[step] + " came back");
  byId("revived").textContent = count(revived.slice(0, step + 1).reduce((sum, n) => sum + n, 0));
  legend.forEach((item, stage) => {
    item.querySelector("b").textContent = count(totals[step][stage]);
    item.querySelector("small").textContent = (100 * totals[step][stage] / totals[step][0]).toFixed(1).replace(".0", "") + "%";
  });
  back.textContent = now.length ? "came back now:" : stages > 1 ? "nothing came back " + (step ? "at this token" : "for the question") : "";
  for (const run of now) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = run.textContent.trim() || "␣";
    button.onclick = () => run.scrollIntoView({ block: "center" });
    back.append(button);
  }
}

// The whole context in one line: a column for each run, as wide as it has tokens.
function draw() {
  const width = map.width = map.clientWidth * devicePixelRatio, height = map.height = map.clientHeight * devicePixelRatio;
  const pen = map.getContext("2d"), last = starts.length;
  const colours = legend.map((item) => getComputedStyle(item.firstElementChild).backgroundColor);
  const x = (place) => (place < last ? starts[place] : context) / context * width;
  runs.forEach((run, place) => {
    pen.fillStyle = colours[depths[place] - 1];
    pen.fillRect(x(place), 0, Math.max(x(place + 1) - x(place), 1), height);
  });
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--mark");
  runs.forEach((run, place) => {
    if (!run.classList.contains("back")) return;
    const strong = run.classList.contains("now");
    pen.fillRect(x(place), strong ? 0 : height * .6, Math.max(x(place + 1) - x(place), devicePixelRatio * (strong ? 2 : 1)), height);
  });
}

map.onclick = (event) => {
  const token = event.offsetX / map.clientWidth * context;
  const place = starts.findLastIndex((start) => start <= token);
  runs[Math.max(place, 0)].scrollIntoView({ block: "center" });
};
slider.oninput = () => show(Number(slider.value));
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
show(Number(slider.value)); // a browser may bring back where the slider was
