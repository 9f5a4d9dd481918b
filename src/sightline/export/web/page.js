"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const status = document.getElementById("status"), results = document.getElementById("results");
const file = document.getElementById("file"), camera = document.getElementById("camera");
const cameraButton = document.getElementById("camera-button"), drop = document.getElementById("drop");
const started = performance.now();
let worker, ready = false, count = 0;
const waiting = new Map();

function tell(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

function element(kind, name, text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

// Unpack a block of gzip in base64 and compare its SHA-256, where the browser offers one.
async function unpack(name) {
  const block = document.getElementById(`data-${name}`), text = block.textContent.trim();
  block.textContent = "";
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  if (self.crypto && crypto.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", packed));
    const hex = Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("");
    if (hex !== facts.sha256[name]) throw new Error(`the page is damaged: the part "${name}" has changed. Copy the file again.`);
  }
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// Some browsers randomise pixels that a page reads, against fingerprinting; predictions would be wrong.
function checkCanvas() {
  const context = newContext(16, 16), known = context.createImageData(16, 16);
  for (let i = 0; i < known.data.length; i++) known.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256;
  context.putImageData(known, 0, 0);
  const read = context.getImageData(0, 0, 16, 16).data;
  if (known.data.some((value, i) => value !== read[i])) {
    throw new Error("this browser changes the pixels that a page reads (protection against fingerprinting), so predictions would be wrong. Allow canvas access for this page, or use another browser.");
  }
}

function newContext(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("the photograph is too large for this browser");
  return context;
}

async function start() {
  if (!("DecompressionStream" in self) || !("Worker" in self)) {
    throw new Error("this browser is too old for this page; use a version of Chrome, Edge, Firefox or Safari from 2023 or later.");
  }
  checkCanvas();
  const [code, model, wasm] = await Promise.all(["worker", "model", "wasm"].map(unpack));
  worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  worker.onmessage = ({ data }) => {
    if (data.kind === "ready") {
      ready = true;
      for (const input of [file, camera, cameraButton]) input.disabled = false;
      const seconds = (performance.now() - started) / 1000;
      document.body.dataset.readySeconds = seconds.toFixed(2);
      tell(`Ready. ${facts.classes.length.toLocaleString("en")} classes: ${facts.classes.slice(0, 12).join(", ")}${facts.classes.length > 12 ? " …" : ""}`);
    } else if (data.kind === "result") {
      waiting.get(data.id)?.resolve(data);
      waiting.delete(data.id);
    } else if (data.id === undefined) tell(`The classifier cannot start: ${data.message}`, true);
    else {
      waiting.get(data.id)?.reject(new Error(data.message));
      waiting.delete(data.id);
    }
  };
  worker.onerror = (event) => tell(`The classifier cannot start: ${event.message}`, true);
  worker.postMessage({ kind: "start", facts, model, wasm }, [model, wasm]);
}

// Pixels as stored, upright, without colour conversion, as Sightline's decoder reads them.
async function decode(blob) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(blob, options);
  const context = newContext(bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  const data = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  return { bitmap, image: { data: new Uint8Array(data.buffer), width: bitmap.width, height: bitmap.height } };
}

function ask(image, withPixels = false) {
  const id = ++count;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ kind: "predict", id, image, withPixels }, [image.data.buffer]);
  });
}

function thumbnail(bitmap) {
  const scale = Math.min(1, 640 / Math.max(bitmap.width, bitmap.height));
  const context = newContext(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, context.canvas.width, context.canvas.height);
  return context.canvas;
}

function predicted(probabilities) {
  if (facts.positive_index !== null) {
    return probabilities[facts.positive_index] >= facts.threshold ? facts.positive_index : 1 - facts.positive_index;
  }
  return probabilities.indexOf(Math.max(...probabilities));
}

const percent = (p) => (p > 0.999 && p < 1 ? ">99.9 %" : `${(100 * p).toFixed(1)} %`);

function show(card, answer) {
  const { probabilities, ood } = answer, best = predicted(probabilities), right = card.lastChild;
  right.replaceChildren(element("h2", "", facts.classes[best]), element("p", "file", card.dataset.name));
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  for (const i of order.slice(0, 5)) {
    const row = element("div", i === best ? "row best" : "row"), bar = element("div", "bar"), fill = element("div", "fill");
    fill.style.width = `${100 * probabilities[i]}%`;
    bar.append(fill);
    const name = element("span", "name", facts.classes[i]);
    name.title = facts.classes[i];
    row.append(name, bar, element("span", "number", percent(probabilities[i])));
    right.append(row);
  }
  const set = facts.prediction_set;
  if (set) {
    const members = order.filter((i) => 1 - probabilities[i] <= set.thresholds[i]).map((i) => facts.classes[i]);
    const text = members.length ? members.join(", ") : "no class: none is as probable as the true class usually is";
    right.append(element("p", "set", `Prediction set (contains the true class in ${Math.round(100 * set.coverage)} % of cases): ${text}`));
  }
  if (ood !== null && facts.ood_threshold !== null && ood > facts.ood_threshold) {
    right.append(element("p", "warning", "Unlike the training images: this photograph may show none of the classes."));
  }
}

async function classify(files) {
  if (!ready) return;
  for (const blob of files) {
    const card = element("section", "card");
    card.dataset.name = blob.name || "pasted image";
    card.append(element("div", ""), element("div", "", "…"));
    results.prepend(card);
    try {
      const { bitmap, image } = await decode(blob);
      card.firstChild.append(thumbnail(bitmap));
      bitmap.close();
      const answer = await ask(image);
      show(card, answer);
      card.dataset.probabilities = JSON.stringify(answer.probabilities);
      card.dataset.milliseconds = answer.milliseconds.toFixed(1);
    } catch (error) {
      const why = error.name === "InvalidStateError" || error.name === "EncodingError" ? "this browser cannot read the image" : error.message;
      card.lastChild.replaceChildren(element("h2", "", "Not predicted"), element("p", "file", card.dataset.name), element("p", "warning", why));
      card.dataset.error = why;
    }
  }
}

file.addEventListener("change", () => classify([...file.files]).then(() => { file.value = ""; }));
camera.addEventListener("change", () => classify([...camera.files]).then(() => { camera.value = ""; }));
cameraButton.addEventListener("click", () => camera.click());
document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  classify([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => classify([...event.clipboardData.files]));
document.getElementById("notices").addEventListener("toggle", async (event) => {
  const text = event.target.querySelector("pre");
  if (!text.textContent) text.textContent = new TextDecoder().decode(await unpack("notices"));
});
for (const [name, text] of Object.entries(facts.about)) {
  document.getElementById("about").append(element("dt", "", name), element("dd", "", text));
}
start().catch((error) => tell(`The classifier cannot start: ${error.message}`, true));
