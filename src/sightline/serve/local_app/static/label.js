// Label: keys give the class; the answer is saved, and the next photograph comes.
"use strict";
(() => {
  const one = (id) => document.getElementById(id);
  const root = one("label");
  const address = `/label/${root.dataset.name}`;
  const keys = root.dataset.keys;
  let state = null;
  let busy = false;

  const show = (next) => {
    state = next;
    const question = state.question;
    one("photo").hidden = !question;
    one("done").hidden = Boolean(question);
    if (question && one("photo").getAttribute("src") !== question.picture) one("photo").src = question.picture;
    one("photo").alt = question ? `photograph ${question.path}` : "";
    one("path").textContent = question ? question.path : "";
    one("drawn").textContent = question ? (question.drawn === "random" ? "random" : "chosen") : "";
    one("drawn").classList.toggle("random", question?.drawn === "random");
    const sure = question?.predicted ? ` · classifier: ${question.predicted} ${Math.round(100 * question.probability)} %` : "";
    one("reason").textContent = question ? question.reason + sure : "";
    one("classes").replaceChildren(...state.classes.map((name, index) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      const key = document.createElement("kbd");
      const text = document.createElement("bdi");
      const count = document.createElement("small");
      button.type = "button";
      button.disabled = !question;
      key.textContent = keys[index];
      text.textContent = name;
      count.textContent = state.counts[name] ?? 0;
      button.append(key, " ", text, " ", count);
      button.addEventListener("click", () => answer("label", name));
      item.append(button);
      return item;
    }));
    one("last").textContent = state.last ? `${state.last[0]}: ${state.last[1]}` : "";
    const estimate = state.estimate;
    const percent = (x) => `${(100 * x).toFixed(0)}\u00a0%`;
    one("estimate").textContent = estimate && estimate.images
      ? percent(estimate.accuracy)
      : "Known after labels of two classes and of one random photograph.";
    one("basis").textContent = estimate && estimate.images 
      ? `95 % CI ${percent(estimate.low)} to ${percent(estimate.high)}, trained on ${estimate.labels} labels, measured on ${estimate.images} random photographs`
      : "";
    one("estimate").classList.toggle("soft", !(estimate && estimate.images));
    one("curve").innerHTML = state.curve; // a drawing of the app, without any text of the user
    one("gain").textContent = state.words;
    const answered = state.trained + state.sampled + state.no_class + state.skipped;
    one("counts").textContent = `${answered} of ${state.images} photographs: ${state.trained} for training, ${state.sampled} random, `
      + `${state.no_class} in no class, ${state.skipped} skipped${state.fitting ? " · fitting …" : ""}`;
    clearTimeout(show.timer);
    if (state.fitting) show.timer = setTimeout(refresh, 700);
  };
  const refresh = async () => {
    if (busy) return;
    try { show(await sightline.get(`${address}/state`)); } catch (error) { sightline.say(error.message, true); }
  };
  const send = async (what, values) => {
    if (busy || !state) return;
    busy = true;
    try {
      show(await sightline.post(`${address}/${what}`, { ...values, seen: state.version }));
      sightline.say("");
      setTimeout(refresh, 400); // a fit may have begun
    } catch (error) {
      sightline.say(error.message, true);
      if (error.status === 409) { busy = false; await refresh(); }
    } finally {
      busy = false;
    }
  };
  const answer = (action, label) => {
    if (state?.question) send("answer", { path: state.question.path, action, ...(label ? { label } : {}) });
  };
  const save = async () => {
    try {
      const made = await sightline.post(`${address}/save`);
      one("saved").hidden = false;
      one("saved").textContent = `Saved ${made.file}. Train on it: ${made.command}`;
    } catch (error) { sightline.say(error.message, true); }
  };
  const act = (action) => {
    if (action === "undo") { if (state?.last) send("undo", {}); }
    else if (action === "save") save();
    else answer(action);
  };
  for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => act(button.dataset.action));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    const index = keys.indexOf(event.key);
    const actions = { n: "no class", s: "skip", u: "undo", b: "save" };
    if (index >= 0 && state?.classes[index]) answer("label", state.classes[index]);
    else if (actions[event.key]) act(actions[event.key]);
    else return;
    event.preventDefault();
  });
  one("add-class").addEventListener("submit", (event) => {
    event.preventDefault();
    const input = event.target.elements.label;
    if (input.value.trim()) answer("label", input.value.trim());
    input.value = "";
    input.blur();
  });
  refresh();
})();
