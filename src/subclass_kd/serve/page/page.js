// The page of `skd serve`. Whatever comes from files or from the server is set as text, never as markup.

const part = (id) => document.getElementById(id);
const AT_A_TIME = 3; // requests, one file each, so that answers come as they are ready
const TRIES = 8; // of a request that a busy server puts off
const IN_32_BITS = " with the student of 32 bits"; // the temperature is fitted to its answers alone
let token = null; // in memory alone
let model = null;
let asked = 0, done = 0, failed = 0;
const waiting = [];
const pictures = new Set();

const percent = (share) => {
  const shown = 100 * share;
  if (shown > 0 && shown < 0.1) return "< 0.1 %";
  if (shown < 100 && shown > 99.9) return "> 99.9 %";
  return `${shown.toFixed(1)} %`;
};
const size = (bytes) => (bytes >= 1048576 ? `${+(bytes / 1048576).toFixed(1)} MiB` : `${bytes} bytes`);
const said = (fault) => {
  const first = `Found ${fault.found}; expected ${fault.expected}.`;
  return fault.remedy ? `${first} ${fault.remedy}` : first;
};
const unreachable = { found: "no answer from the server", expected: "one", remedy: "Is it still running?" };

async function ask(path, options = {}) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  for (let tries = 1; ; tries++) {
    const response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.status !== 503 || tries === TRIES) return response;
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise((ready) => setTimeout(ready, 1000 * seconds));
  }
}

async function start() {
  let response, content;
  try {
    response = await ask("v1/model");
    content = await response.json();
  } catch {
    return trouble(said(unreachable));
  }
  if (response.status === 401) {
    if (token !== null) trouble("This is not the token of this server.");
    token = null;
    part("unlock").hidden = false;
    part("token").focus();
    return;
  }
  if (!response.ok) return trouble(said(content.error));
  trouble("");
  const unlocked = !part("unlock").hidden;
  part("unlock").hidden = true;
  part("token").value = "";
  model = content;
  introduce();
  part("ask").hidden = false;
  if (unlocked) part("files").focus();
}

function trouble(text) {
  part("trouble").textContent = text;
  part("trouble").hidden = text === "";
}

function introduce() {
  part("question").textContent = `${model.classes.slice(0, -1).join(", ")} or ${model.classes.at(-1)}?`;
  document.title = part("question").textContent;
  part("version").textContent = model.version;
  part("advice").hidden = model.advice === null;
  part("advice").textContent = model.advice === null ? "" : `Student of 8 bits. ${model.advice}`;
  const { limits } = model;
  part("taken").textContent = "PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000 and DICOM, one image a file, " +
    `of at most ${size(limits.file_bytes)} and ${limits.pixels / 1e6} million pixels.`;
  part("rule").textContent = model.threshold === null
    ? "The decision is the most probable class."
    : `The decision is ${model.positive} where its probability is at least ${percent(model.threshold)}.`;
  const facts = [
    ["Network’s input", model.preprocessing.said ??
      `${model.preprocessing.width} × ${model.preprocessing.height}, ${model.preprocessing.channels} channels`],
    ["Threshold", model.threshold === null ? "none: the most probable class" :
      `${percent(model.threshold)} for ${model.positive}${model.rule ? `, by the rule ${model.rule}` : ""}`],
    ["Calibration", model.temperature === null ? "not stated" :
      `temperature ${model.temperature.toFixed(3)}, fitted on validation images${model.int8 ? IN_32_BITS : ""}`],
    ["Trained as", model.arm === null ? "not stated" : `arm ${model.arm}, seed ${model.seed}`],
    ["Weights", `${model.int8 ? "8 bits" : "32 bits"}, SHA-256 ${model.model_sha256}`],
  ];
  part("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  part("card").hidden = model.card === null;
  part("card").querySelector("pre").textContent = model.card ?? "";
}

function element(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function add(files) {
  if (model === null || files.length === 0) return;
  for (const file of files) {
    const place = part("answer").content.firstElementChild.cloneNode(true);
    place.querySelector("h3").textContent = file.name;
    place.querySelector(".told").hidden = true;
    part("answers").append(place);
    waiting.push([file, place]);
  }
  asked += files.length;
  part("clear").hidden = part("answers-title").hidden = false;
  tell();
  for (let n = 0; n < AT_A_TIME; n++) work();
}

let working = 0;
async function work() {
  if (working >= AT_A_TIME || waiting.length === 0) return;
  working++;
  while (waiting.length > 0) {
    const [file, place] = waiting.shift();
    const error = await answer(file, place);
    if (!place.isConnected) continue; // cleared meanwhile
    if (error !== null) {
      const bad = place.querySelector(":scope > div > .bad");
      bad.textContent = said(error);
      bad.hidden = false;
      failed++;
    }
    done++;
    tell();
  }
  working--;
}

async function answer(file, place) {
  const { limits } = model;
  if (file.size > limits.file_bytes) { // it need not be sent to be refused
    return { found: size(file.size), expected: `at most ${size(limits.file_bytes)}`, remedy: "Choose a smaller file." };
  }
  const form = new FormData();
  form.append("files", file);
  let response, content;
  try {
    response = await ask("v1/predictions", { method: "POST", body: form });
    content = await response.json();
  } catch {
    return unreachable;
  }
  if (!response.ok) return content.error;
  const row = content.predictions[0];
  show(row, content, place);
  picture(file, place);
  return null;
}

function show(row, { threshold, positive }, place) {
  const text = (name, value) => { place.querySelector(name).textContent = value; };
  text(".decision", row.decision);
  const sure = model.temperature === null ? "Probability"
    : model.int8 ? `Confidence (calibrated${IN_32_BITS})` : "Calibrated confidence";
  text(".confidence", `${sure} ${percent(row.confidence)}${against(row, threshold, positive)}.`);
  const bars = place.querySelector(".classes");
  for (const { name, probability } of row.classes) {
    bars.append(bar(name, probability, name === row.decision, name === positive ? threshold : null));
  }
  const within = place.querySelector(".subclasses");
  for (const { name } of row.classes) {
    within.append(element("p", name));
    for (const each of row.subclasses.filter((one) => one.class === name)) {
      within.append(bar(each.name, each.probability, name === row.decision, null));
    }
  }
  place.querySelector("details").hidden = row.subclasses.length === 0;
  place.querySelector(".told").hidden = false;
}

function against(row, threshold, positive) {
  if (threshold === null) return "";
  const found = row.classes.find((each) => each.name === positive).probability;
  const whose = row.decision === positive ? "" : ` ${positive} has ${percent(found)},`;
  const side = row.decision === positive ? "at or above" : "below";
  return `${whose === "" ? "," : ";"}${whose} ${side} the threshold of ${percent(threshold)}`;
}

function bar(name, probability, chosen, threshold) {
  const made = part("bar").content.firstElementChild.cloneNode(true);
  made.classList.toggle("chosen", chosen);
  made.querySelector(".name").textContent = name;
  made.querySelector(".number").textContent = percent(probability);
  made.querySelector(".fill").style.width = `${100 * Math.min(1, Math.max(0, probability))}%`;
  if (threshold !== null) {
    const mark = made.querySelector(".threshold");
    mark.style.left = `${100 * Math.min(1, Math.max(0, threshold))}%`;
    mark.hidden = false;
  }
  return made;
}

function picture(file, place) {
  const shown = place.querySelector("img");
  const address = URL.createObjectURL(file);
  pictures.add(address);
  const forget = () => { URL.revokeObjectURL(address); pictures.delete(address); };
  shown.onload = () => {
    shown.classList.toggle("small", shown.naturalWidth < 100); // its pixels stay sharp
    shown.hidden = false;
    forget();
  };
  shown.onerror = forget; // a kind that browsers do not show, such as TIFF or DICOM
  shown.src = address;
}

function tell() {
  const bad = failed === 0 ? "" : `, ${failed} of them without an answer`;
  part("state").textContent = asked === 0 ? "" : done < asked
    ? `Asking: ${done} of ${asked} images done${bad}.`
    : `${done} ${done === 1 ? "image" : "images"} done${bad}.`;
}

part("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  token = part("token").value.trim();
  start();
});
part("files").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = ""; // so that the same file can be chosen again
});
part("clear").addEventListener("click", () => {
  waiting.length = asked = done = failed = 0;
  pictures.forEach((address) => URL.revokeObjectURL(address));
  pictures.clear();
  part("answers").replaceChildren();
  part("clear").hidden = part("answers-title").hidden = true;
  tell();
  part("files").focus();
});
// Dropped anywhere on the page: beside the box, the browser would open the file in the page's stead.
let inside = 0;
const over = (change) => (event) => {
  event.preventDefault();
  inside += change;
  part("drop").classList.toggle("over", inside > 0);
};
addEventListener("dragenter", over(1));
addEventListener("dragleave", over(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  part("drop").classList.remove("over");
  add([...event.dataTransfer.files]);
});
start();
