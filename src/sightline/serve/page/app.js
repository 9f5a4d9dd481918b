"use strict";
const element = (id) => document.getElementById(id);
const MOST_CLASSES = 8;
let token = decodeURIComponent((/[#&]token=([^&]*)/.exec(location.hash) || ["", ""])[1]);
let latest = 0;
let coverage = 0;
let photoUrl = "";
if (location.hash) history.replaceState(null, "", location.pathname);

async function call(path, options = {}) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const response = await fetch(path, { ...options, headers });
  const value = await response.json();
  if (response.status === 401) element("token-form").hidden = false;
  return { status: response.status, value };
}

async function loadModel() {
  const name = element("model").value;
  const { status, value } = await call("/model" + (name ? "?model=" + encodeURIComponent(name) : ""));
  if (status !== 200) { say(value.error, true); return; }
  element("token-form").hidden = true;
  say("");
  if (!name) {
    for (const model of value.models) element("model").append(new Option(model, model));
    element("model-choice").hidden = value.models.length < 2;
  }
  coverage = [0.95, 0.9].find((c) => value.card.limits.images >= 1 / (1 - c) - 1.001) || 0;
  const shown = value.classes.slice(0, 20).join(", ");
  element("about").textContent = value.model + ": " + shown + (value.classes.length > 20 ? ", …" : "");
}

function say(text, isError = false) {
  element("message").textContent = text;
  element("message").className = isError ? "error" : "";
}

async function predict(file) {
  const number = ++latest;
  say("Predicting " + (file.name || "the image") + " …");
  const form = new FormData();
  form.append("images", file, file.name || "pasted image");
  const name = element("model").value;
  const query = "?heatmap=true&similar=true" + (coverage ? "&sets=" + coverage : "") + (name ? "&model=" + encodeURIComponent(name) : "");
  let answer;
  try {
    answer = await call("/predict" + query, { method: "POST", body: form });
  } catch (error) {
    say("The service does not answer. Is it still running?", true);
    return;
  }
  if (number !== latest) return;
  const row = (answer.value.predictions || [{}])[0];
  if (answer.status !== 200 || row.error) {
    element("result").hidden = true;
    say(row.error || answer.value.error, true);
    return;
  }
  say("");
  show(file, row);
}

function show(file, row) {
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
  const ranked = Object.entries(row.probabilities).sort((a, b) => b[1] - a[1]);
  element("probabilities").replaceChildren(...ranked.slice(0, MOST_CLASSES).map(([name, value]) => tableRow(name, value)));
  element("heatmap-figure").hidden = !row.heatmap;
  if (row.heatmap) element("heatmap").src = row.heatmap;
  element("similar-part").hidden = !(row.similar || []).length;
  element("similar").replaceChildren(...(row.similar || []).map(similarItem));
  element("result").hidden = false;
}

function tableRow(name, value) {
  const row = document.createElement("tr");
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = value;
  bar.setAttribute("aria-label", name);
  for (const content of [name, bar, percent(value)]) row.insertCell().append(content);
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
