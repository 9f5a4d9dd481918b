// Data: move between photographs and decide about them with keys.
"use strict";
(() => {
  const one = (id) => document.getElementById(id);
  const root = one("data");
  const address = `/data/${root.dataset.id}`;
  const tiles = [...document.querySelectorAll(".tile")];
  const keys = "1234567890qwertyuiopasdfghjklzxcvbnm";
  let version = Number(root.dataset.version);
  let current = tiles[0] ?? null;

  const focus = (tile) => {
    if (!tile) return;
    if (current) current.tabIndex = -1;
    current = tile;
    tile.tabIndex = 0;
    tile.focus();
    tile.scrollIntoView({ block: "nearest" });
  };
  const columns = () => {
    if (!tiles.length) return 1;
    const top = tiles[0].getBoundingClientRect().top;
    const other = tiles.findIndex((tile) => tile.getBoundingClientRect().top > top + 4);
    return other < 0 ? tiles.length : other;
  };
  const move = (by) => focus(tiles[Math.min(tiles.length - 1, Math.max(0, tiles.indexOf(current) + by))]);

  const mark = (made) => {
    version = made.version;
    one("decided").textContent = `(${made.decided})`;
    const tile = tiles.find((each) => each.dataset.image === made.image);
    if (!tile) { sightline.say(made.decision ? `${made.path}: ${made.decision}` : `${made.path}: decision taken back`); return; }
    tile.querySelector(".mark").textContent = made.decision;
    tile.classList.toggle("decided", Boolean(made.decision));
  };
  const send = async (what, values) => {
    try {
      mark(await sightline.post(`${address}/${what}`, { ...values, seen: version }));
      return true;
    } catch (error) {
      sightline.say(error.message, true);
      return false;
    }
  };
  const decide = async (action, label) => {
    const tile = current;
    if (!tile) return;
    if (await send("decide", { image: tile.dataset.image, action, ...(label ? { label } : {}) })) move(1);
  };

  // the right class
  const dialog = one("choose");
  const choices = [...dialog.querySelectorAll("[data-label]")];
  choices.forEach((button, index) => {
    button.querySelector("kbd").textContent = keys[index] ?? "";
    button.addEventListener("click", () => { dialog.close(); decide("label", button.dataset.label); });
  });
  const choose = () => {
    if (!current) return;
    dialog.showModal();
    const first = choices.find((button) => button.dataset.label === current.dataset.suggested) ?? choices[0];
    first?.focus();
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return;
    const at = choices.indexOf(document.activeElement);
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      choices[(at + (event.key === "ArrowDown" ? 1 : -1) + choices.length) % choices.length]?.focus();
    } else if (!event.ctrlKey && !event.metaKey && keys.includes(event.key) && choices[keys.indexOf(event.key)]) {
      choices[keys.indexOf(event.key)].click();
    } else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => current?.focus());
  one("choose-other").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = event.target.elements.label.value.trim();
    event.target.reset();
    if (label) { dialog.close(); decide("label", label); }
  });

  // the enlarged photograph
  const large = one("large");
  const enlarge = () => {
    if (!current) return;
    large.querySelector("img").src = current.dataset.large;
    large.querySelector("bdi").textContent = current.querySelector(".path").textContent;
    large.showModal();
  };
  large.addEventListener("click", () => large.close());
  large.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); large.close(); } });
  large.addEventListener("close", () => current?.focus());

  for (const tile of tiles) {
    tile.addEventListener("focus", () => { if (current !== tile) { if (current) current.tabIndex = -1; current = tile; tile.tabIndex = 0; } });
    tile.addEventListener("click", enlarge);
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open || large.open) return;
    if (event.target.matches("input, select, textarea")) return;
    const act = {
      ArrowRight: () => move(1), ArrowLeft: () => move(-1), ArrowDown: () => move(columns()), ArrowUp: () => move(-columns()),
      d: () => decide("duplicate"), x: () => decide("exclude"), n: () => decide("no class"), k: () => decide("keep"),
      w: choose, u: () => send("undo", {}),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  for (const select of document.querySelectorAll("#filters select")) select.addEventListener("change", () => one("filters").requestSubmit());
  one("save").addEventListener("click", async () => {
    try {
      const made = await sightline.post(`${address}/save`);
      one("saved").hidden = false;
      one("saved").textContent = `${made.changes} changes: ${made.file}, listed in ${made.list}. Train on it: ${made.command}`;
    } catch (error) { sightline.say(error.message, true); }
  });
  const watch = async () => {
    try {
      const state = await sightline.get(`${address}/audit`);
      if (!state.running) { location.reload(); return; }
      one("step").textContent = `Audit: ${state.step || "waiting"} …`;
      setTimeout(watch, 700);
    } catch (error) { one("step").textContent = error.message; one("find").disabled = false; }
  };
  if (root.dataset.auditing) watch();
})();
