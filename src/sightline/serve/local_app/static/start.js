// Start: complete the path of a folder, and show the command line that the form stands for.
"use strict";
(() => {
  const later = (work, ms) => {
    let timer;
    return () => { clearTimeout(timer); timer = setTimeout(work, ms); };
  };
  const input = document.querySelector("[data-folders]");
  const list = document.getElementById("folders");
  if (input && list) {
    const complete = later(async () => {
      const found = await sightline.get(`/start/folders?path=${encodeURIComponent(input.value)}`).catch(() => []);
      list.replaceChildren(...found.map((path) => Object.assign(document.createElement("option"), { value: path })));
    }, 150);
    input.addEventListener("input", complete);
    input.addEventListener("focus", complete, { once: true });
  }
  const form = document.querySelector("[data-command]");
  if (form) {
    const shown = form.querySelector(".command");
    const update = later(async () => {
      const values = new URLSearchParams(new FormData(form));
      values.delete("csrf");
      try {
        shown.textContent = (await sightline.get(`${form.dataset.command}?${values}`)).command;
      } catch (error) {
        sightline.say(error.message, true);
      }
    }, 120);
    form.addEventListener("input", update);
  }
})();
