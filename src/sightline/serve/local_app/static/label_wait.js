// The progress of the preparation of a labelling session.
"use strict";
(() => {
  const name = document.getElementById("wait").dataset.name;
  const bar = document.getElementById("wait-bar");
  const text = document.getElementById("wait-text");
  const look = async () => {
    try {
      const state = await sightline.get(`/label/${name}/progress`);
      if (state.ready) { location.reload(); return; }
      if (state.total) { bar.max = state.total; bar.value = state.done; }
      text.textContent = state.total ? `${state.stage}: ${state.done.toLocaleString("en-US")} of ${state.total.toLocaleString("en-US")}` : `${state.stage} …`;
      setTimeout(look, 500);
    } catch (error) {
      text.textContent = error.message;
      bar.hidden = true;
    }
  };
  look();
})();
