"use strict";
const element = (id) => document.getElementById(id);
const base = document.currentScript.dataset.base || "";
const wanted = document.currentScript.dataset.model || "";
const csrf = document.querySelector("meta[name=csrf]")?.content;
const MOST_CLASSES = 8;
let token = decodeURIComponent((/[#&]token=([^&]*)/.exec(location.hash) || ["", ""])[1]);
let latest = 0;
let coverage = 0;
let photoUrl = "";
let current = null; // the image that is shown: file, row of the answer, and the covered region in its pixels
if (location.hash) history.replaceState(null, "", location.pathname);

async function call(path, options = {}) {
  const headers = { accept: "application/json", ...(token ? { Authorization: "Bearer " + token } : {}), ...(csrf ? { "x-csrf-token": csrf } : {}) };
  const response = await fetch(base + path, { ...options, headers });
  const value = await response.json();
  if (response.status === 401) element("token-form").hidden = false;
  return { status: response.status, value };
}

async function loadModel() {
  const first = !element("model").options.length;
  const name = first ? wanted : element("model").value;
  const { status, value } = await call("/model" + (name ? "?model=" + encodeURIComponent(name) : ""));
  if (status !== 200) { say(value.error, true); return; }
  element("token-form").hidden = true;
  say("");
  if (first) {
    for (const model of value.models) element("model").append(new Option(model, model));
    element("model").value = value.model;
    element("model-choice").hidden = value.models.length < 2;
  }
  coverage = [0.95, 0.9].find((c) => value.card.limits.images >= 1 / (1 - c) - 1.001) || 0;
  element("method").replaceChildren(...Object.entries(value.methods).map(([key, title]) => new Option(title, key)));
  element("target").replaceChildren(new Option("predicted", ""), ...value.classes.map((one) => new Option(one, one)));
  current = null;
  element("result").hidden = true;
  const shown = value.classes.slice(0, 20).join(", ");
  element("about").textContent = value.model + ": " + shown + (value.classes.length > 20 ? ", …" : "");
}

function say(text, isError = false) {
  element("message-try").textContent = text;
  element("message-try").className = isError ? "error" : "";
}

async function ask(file, parameters) {
  const form = new FormData();
  form.append("images", file, file.name || "pasted image");
  const name = element("model").value;
  const query = new URLSearchParams({ ...parameters, ...(name ? { model: name } : {}) });
  const answer = await call("/predict?" + query, { method: "POST", body: form });
  const row = (answer.value.predictions || [{}])[0];
  if (answer.status !== 200 || row.error) throw new Error(row.error || answer.value.error);
  return row;
}

async function predict(file) {
  const number = ++latest;
  say("Predicting " + (file.name || "the image") + " …");
  let row;
  try {
    row = await ask(file, { heatmap: true, similar: true, method: element("method").value || "auto", ...(coverage ? { sets: coverage } : {}) });
  } catch (error) {
    if (number !== latest) return;
    element("result").hidden = true;
    say(error instanceof TypeError ? "The service does not answer. Is it still running?" : error.message, true);
    return;
  }
  if (number !== latest) return;
  say("");
  show(file, row);
}

async function redraw() {
  const shown = current;
  if (!shown) return;
  const target = element("target").value;
  element("heatmap-figure").classList.add("busy");
  try {
    const row = await ask(shown.file, { heatmap: true, method: element("method").value, ...(target ? { target } : {}) });
    if (shown === current) showHeatmap(row);
  } catch (error) { say(error.message, true); }
  element("heatmap-figure").classList.remove("busy");
}

async function cover() {
  const shown = current;
  if (!shown || !shown.region) return;
  const region = shown.region.map(Math.round).join(",");
  element("answer").classList.add("busy");
  try {
    const { covered } = await ask(shown.file, { cover: region });
    if (shown === current && !element("region").hidden) {
      if (covered.error) throw new Error(covered.error);
      showCovered(covered);
      say("");
    }
  } catch (error) { say(error.message, true); }
  element("answer").classList.remove("busy");
}

function showHeatmap(row) {
  element("heatmap").hidden = !row.heatmap;
  if (row.heatmap) element("heatmap").src = row.heatmap;
  element("ramp").hidden = !row.heatmap;
  element("heatmap-caption").textContent = row.heatmap
    ? "Method: " + row.heatmap_method + ". The strongest colour is the maximum of this heatmap; the line is drawn at half of it."
    : row.heatmap_error || "This classifier has no heatmaps.";
}

function showCovered(covered) {
  const same = covered.answer_before === covered.answer_after;
  const answer = same ? "still " + covered.answer_after : covered.answer_before + " becomes " + covered.answer_after;
  const change = covered.answer_before + " " + percent(covered.before) + " → " + percent(covered.after);
  element("covered-text").textContent = percent(covered.share) + " covered: " + answer + ". Probability of " + change + ".";
  element("covered-text").hidden = false;
  showProbabilities(current.row.probabilities, covered.probabilities_after);
}

function showProbabilities(values, covered = null) {
  const ranked = Object.entries(values).sort((a, b) => b[1] - a[1]).slice(0, MOST_CLASSES);
  element("probability-heads").hidden = !covered;
  element("probabilities").replaceChildren(...ranked.map(([name, value]) => tableRow(name, value, covered ? covered[name] : null)));
}

function show(file, row) {
  current = { file, row, region: null };
  showRegion();
  element("target").value = "";
  if (photoUrl) URL.revokeObjectURL(photoUrl);
  photoUrl = URL.createObjectURL(file);
  element("photo").src = photoUrl;
  element("photo").alt = row.path;
  element("photo-name").textContent = row.path;
  element("label").textContent = row.label + " " + percent(row.probability);
  const warnings = [];
  if (row.ood_threshold != null && row.ood_score > row.ood_threshold) {
    warnings.push("This image is unlike the training images: do not rely on the prediction.");
  }
  if (row.unsure) warnings.push("Unsure: the true class may be another one.");
  element("warning").textContent = warnings.join(" ");
  element("warning").hidden = !warnings.length;
  element("set").hidden = !row.set;
  if (row.set) {
    const names = row.set.length ? row.set.join(", ") : "none of the classes";
    element("set").textContent = "Prediction set (" + percent(row.coverage) + " coverage): " + names;
  }
  showProbabilities(row.probabilities);
  showHeatmap(row);
  element("similar-part").hidden = !(row.similar || []).length;
  element("similar").replaceChildren(...(row.similar || []).map(similarItem));
  element("result").hidden = false;
}

function tableRow(name, value, covered) {
  const row = document.createElement("tr");
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = value;
  bar.setAttribute("aria-label", name);
  for (const content of [name, bar, percent(value), ...(covered === null ? [] : [percent(covered)])]) row.insertCell().append(content);
  return row;
}

function similarItem(image) {
  const item = document.createElement("li");
  const picture = document.createElement("img");
  picture.src = image.thumbnail;
  picture.alt = image.path;
  const text = document.createElement("span");
  text.textContent = (image.label || "no label") + ", distance " + image.distance.toFixed(3);
  item.title = image.path;
  item.append(picture, text);
  return item;
}

function percent(value) {
  const text = (100 * value).toFixed(1);
  if (text === "100.0" && value < 1) return ">99.9 %";
  return (text === "0.0" && value > 0 ? "<0.1" : text) + " %";
}

// the covered region: [x, y, width, height] in pixels of the photograph
function showRegion() {
  const photo = element("photo");
  const region = current && current.region;
  element("region").hidden = !region;
  element("uncover").hidden = !region;
  element("cover-help").hidden = !region && !element("photo-frame").classList.contains("covering");
  if (!region) {
    element("photo-frame").classList.remove("covering");
    element("cover-help").hidden = true;
    element("covered-text").hidden = true;
    return;
  }
  const [x, y, width, height] = region;
  const sides = { left: x / photo.naturalWidth, top: y / photo.naturalHeight, width: width / photo.naturalWidth, height: height / photo.naturalHeight };
  for (const [side, share] of Object.entries(sides)) element("region").style[side] = 100 * share + "%";
}

function setRegion(x, y, width, height) {
  const { naturalWidth: w, naturalHeight: h } = element("photo");
  const left = Math.min(Math.max(0, Math.round(x)), w - 1);
  const top = Math.min(Math.max(0, Math.round(y)), h - 1);
  current.region = [left, top, Math.max(1, Math.min(Math.round(width), w - left)), Math.max(1, Math.min(Math.round(height), h - top))];
  showRegion();
}

element("cover").addEventListener("click", () => {
  if (!current) return;
  const { naturalWidth: w, naturalHeight: h } = element("photo");
  element("photo-frame").classList.add("covering");
  if (!current.region) setRegion(w / 3, h / 3, w / 3, h / 3);
  element("region").focus();
  cover();
});
element("uncover").addEventListener("click", () => {
  current.region = null;
  showRegion();
  showProbabilities(current.row.probabilities);
  element("cover").focus();
});
element("region").addEventListener("keydown", (event) => {
  const { naturalWidth: w, naturalHeight: h } = element("photo");
  const step = { ArrowLeft: [-w / 20, 0], ArrowRight: [w / 20, 0], ArrowUp: [0, -h / 20], ArrowDown: [0, h / 20] }[event.key];
  const [x, y, width, height] = current.region;
  if (event.key === "Enter") cover();
  else if (event.key === "Escape" || event.key === "Delete") element("uncover").click();
  else if (!step) return;
  else if (event.shiftKey) setRegion(x, y, width + step[0], height + step[1]);
  else setRegion(Math.min(x + step[0], w - width), Math.min(y + step[1], h - height), width, height);
  event.preventDefault();
  if (step) { clearTimeout(cover.timer); cover.timer = setTimeout(cover, 500); }
});
let start = null;
const place = (event) => {
  const photo = element("photo");
  const box = photo.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * photo.naturalWidth, (event.clientY - box.top) / box.height * photo.naturalHeight];
};
element("photo-frame").addEventListener("pointerdown", (event) => {
  if (!current || !element("photo-frame").classList.contains("covering")) return;
  event.preventDefault();
  start = place(event);
  element("photo-frame").setPointerCapture(event.pointerId);
});
element("photo-frame").addEventListener("pointermove", (event) => {
  if (!start) return;
  const end = place(event);
  setRegion(Math.min(start[0], end[0]), Math.min(start[1], end[1]), Math.abs(start[0] - end[0]), Math.abs(start[1] - end[1]));
});
element("photo-frame").addEventListener("pointerup", () => { if (start) { start = null; element("region").focus(); cover(); } });
element("photo").addEventListener("load", () => { // photograph and heatmap have the same size, at most 26rem high
  const { naturalWidth: w, naturalHeight: h } = element("photo");
  for (const id of ["photo-frame", "heatmap"]) element(id).style.width = `min(100%, ${(26 * w / h).toFixed(2)}rem)`;
});
element("photo").addEventListener("dragstart", (event) => event.preventDefault());
for (const id of ["method", "target"]) element(id).addEventListener("change", redraw);

element("file").addEventListener("change", (event) => {
  if (event.target.files.length) predict(event.target.files[0]);
  event.target.value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); element("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) element("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  if (event.dataTransfer.files.length) predict(event.dataTransfer.files[0]);
  else say("Drop an image file.", true);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) predict(file);
  else if (event.target === document.body) say("The clipboard contains no image.", true);
});
element("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); element("file").click(); }
});
element("model").addEventListener("change", loadModel);
element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value;
  loadModel();
});
loadModel().catch(() => say("The service does not answer.", true));
