// Runs: follow what works, and compare what is ticked.
"use strict";
(() => {
  const EVERY_MS = 1500;
  // One run: replace the changing part; another state loads the page again.
  const live = document.querySelector("[data-live]");
  const follow = async () => {
    try {
      const answer = await fetch(live.dataset.live, { headers: { accept: "text/html" } });
      if (answer.status === 401) return sightline.say("This page has no session any more; open the new address.", true);
      const state = answer.headers.get("x-state");
      if (state === "moved") return location.replace(answer.headers.get("x-address"));
      if (state !== "running") return location.reload();
      const text = await answer.text();
      live.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
      sightline.say("");
    } catch {
      sightline.say("The app does not answer; the run goes on without it.", true);
    }
    setTimeout(follow, EVERY_MS);
  };
  if (live) setTimeout(follow, EVERY_MS);

  // The list: stage and share of what works; a change of state loads the page again, unless something is ticked.
  const form = document.getElementById("compare");
  if (!form) return;
  const rows = [...form.querySelectorAll("[data-run]")];
  const ticks = () => form.querySelectorAll("input:checked").length;
  const button = form.querySelector("[data-compare]");
  const words = form.querySelector("[data-ticked]");
  const hint = words.textContent;
  const count = () => {
    const n = ticks();
    button.disabled = n < 2;
    words.textContent = n ? `${n} ${n === 1 ? "run" : "runs"} ticked` : hint;
  };
  form.addEventListener("change", count);
  count();
  const watch = async () => {
    try {
      const now = await sightline.get("/runs.json");
      let changed = false;
      for (const row of rows) {
        const told = now[row.dataset.run];
        if (row.dataset.state === "running" && told?.state === "running") {
          row.querySelector("[data-stage]").textContent = told.stage;
          const bar = row.querySelector("[data-share]");
          told.share === null ? bar.removeAttribute("value") : (bar.value = told.share);
        } else if (row.dataset.state === "running" || told?.state === "running") changed = true;
      }
      const known = new Set(rows.map((row) => row.dataset.run));
      if (Object.keys(now).some((name) => now[name].state === "running" && !known.has(name))) changed = true;
      if (changed && !ticks()) return location.reload();
    } catch (error) {
      if (error.status === 401) return sightline.say("This page has no session any more; open the new address.", true);
    }
    setTimeout(watch, rows.some((row) => row.dataset.state === "running") ? EVERY_MS : 4 * EVERY_MS);
  };
  setTimeout(watch, EVERY_MS);
})();
