// Interaction of the report. Everything that it moves, filters or enlarges is in the page without it, too.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const percent = (x) => (Number.isFinite(x) ? `${(100 * x).toFixed(x === 0 || x === 1 ? 0 : 1)}\u00a0%` : "n/a");
  const number = (n) => n.toLocaleString("en-US");
  const button = (text, label) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    if (label) made.setAttribute("aria-label", label);
    return made;
  };
  for (const element of all(".js")) element.hidden = false;

  // ------------------------------------------------------------------------------------------------- contents
  const links = new Map(all(".contents a").map((a) => [a.hash.slice(1), a]));
  const seen = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const e of entries) e.isIntersecting ? seen.add(e.target.id) : seen.delete(e.target.id);
    const first = [...links.keys()].find((id) => seen.has(id));
    if (!first) return;
    for (const [id, a] of links) id === first ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current");
  });
  for (const id of links.keys()) {
    const section = document.getElementById(id);
    if (section) watcher.observe(section);
  }

  // ------------------------------------------------------------------------------------------------- tables
  const value = (cell) => {
    const text = (cell?.dataset.value ?? cell?.textContent ?? "").trim();
    const found = text.replace(/,(?=\d{3})/g, "").match(/^[<>≥≤]?\s*(-?\d+(\.\d+)?)/);
    return found ? parseFloat(found[1]) : text.toLowerCase();
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  };
  const sort = (table, column, header) => {
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const h of all("thead th", table)) h.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const groups = [];
    for (const row of table.tBodies[0].rows) row.classList.contains("note") && groups.length ? groups.at(-1).push(row) : groups.push([row]);
    groups.sort((a, b) => (up ? 1 : -1) * compare(value(a[0].cells[column]), value(b[0].cells[column])));
    for (const row of groups.flat()) table.tBodies[0].append(row);
  };
  const csv = (table) =>
    all("tr", table)
      .filter((row) => !row.hidden)
      .map((row) => [...row.cells].map((cell) => {
        let text = cell.textContent.replace(/\s+/g, " ").trim();
        if (/^[=+@\t]|^-(?!\d)/.test(text)) text = `'${text}`; // a spreadsheet would run it as a formula
        return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
      }).join(","))
      .join("\n");
  const copy = async (text, where) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const before = where.textContent;
    where.textContent = "Copied";
    setTimeout(() => { where.textContent = before; }, 1500);
  };
  for (const table of all("table:not(.confusion)")) {
    if (!table.tHead || table.tBodies[0].rows.length < 2) continue;
    all("thead th", table).forEach((header) => {
      const text = header.textContent.trim();
      if (!text || header.matches(".figure-cell, .unsorted")) return;
      const made = button(text);
      made.className = "sort";
      header.replaceChildren(made);
      made.addEventListener("click", () => sort(table, header.cellIndex, header));
    });
    const made = button("Copy as CSV");
    made.className = "copy";
    made.addEventListener("click", () => copy(csv(table), made));
    (table.closest(".scroll:not(.wide)") ?? table).after(made);
  }
  for (const scroll of all(".scroll")) scroll.tabIndex = 0;
  for (const pre of all(".commands pre")) {
    const made = button("Copy", "Copy command");
    made.className = "copy";
    made.addEventListener("click", () => copy(pre.textContent, made));
    pre.after(made);
  }

  // ------------------------------------------------------------------------------------------------- galleries
  for (const slider of all("[data-opacity]")) {
    const box = slider.closest(".wide");
    slider.addEventListener("input", () => box.style.setProperty("--heat", slider.value / 100));
  }
  const filter = (box) => {
    const chosen = Object.fromEntries(all("[data-filter]", box).map((select) => [select.dataset.filter, select.value]));
    const [low, high] = chosen.confidence ? chosen.confidence.split("-").map(Number) : [0, 1];
    const items = all("[data-pair]", box);
    let shown = 0;
    for (const item of items) {
      const confidence = Number(item.dataset.confidence);
      const inside = confidence >= low && (confidence < high || high === 1);
      const grouped = (!chosen.group || item.dataset.groups.split("\u001f").includes(chosen.group)) && (!chosen.split || chosen.split === item.dataset.split);
      item.hidden = !(inside && grouped && (!chosen.pair || chosen.pair === item.dataset.pair));
      shown += item.hidden ? 0 : 1;
    }
    const any = Object.values(chosen).some(Boolean);
    one("output", box).textContent = any ? `${number(shown)} of ${number(items.length)} ${box.dataset.noun} shown` : "";
    for (const folded of all("details:has([data-pair])", box)) if (any && one("[data-pair]:not([hidden])", folded)) folded.open = true;
  };
  for (const box of all(".filtered")) {
    for (const select of all("[data-filter]", box)) select.addEventListener("change", () => filter(box));
    one("[data-reset]", box)?.addEventListener("click", () => {
      for (const select of all("[data-filter]", box)) select.value = "";
      filter(box);
    });
  }
  const show = (from) => {
    const box = one(".filtered", from.closest("article"));
    const select = box && one("[data-filter=pair]", box);
    if (!select) return box?.scrollIntoView();
    select.value = from.dataset.show;
    const split = one("[data-filter=split]", box);
    if (split) split.value = one("[data-pair]", box).dataset.split; // the confusion matrix counts the images that come first
    filter(box);
    box.closest("section").scrollIntoView();
    select.focus({ preventScroll: true });
  };
  for (const cell of all("[data-show]")) {
    if (!one(`.filtered [data-pair="${cell.dataset.show}"]`, cell.closest("article"))) continue;
    if (cell instanceof SVGElement) {
      cell.classList.add("clickable");
      cell.addEventListener("click", () => show(cell));
      continue;
    }
    const made = button(cell.textContent, `Show these ${cell.textContent} images`);
    cell.replaceChildren(made);
    made.addEventListener("click", () => show(cell));
  }

  // ------------------------------------------------------------------------------------------------- viewer
  const viewer = document.getElementById("viewer");
  let series = [];
  let place = 0;
  const step = (by) => {
    place = (place + by + series.length) % series.length;
    const frame = series[place];
    const copied = frame.cloneNode(true);
    copied.removeAttribute("role");
    copied.removeAttribute("tabindex");
    copied.removeAttribute("aria-label");
    const words = all(".verdict, .path", frame.parentElement).map((p) => p.cloneNode(true));
    one(".stage", viewer).replaceChildren(copied);
    one(".stage", viewer).className = `stage ${all("input[type=radio]:checked", frame.closest(".wide") ?? undefined)[0]?.value ?? ""}`;
    const similar = frame.dataset.similar && document.getElementById(frame.dataset.similar);
    const others = document.createElement("div");
    others.className = "others";
    if (similar) {
      others.append("Nearest training images:");
      others.append(...all("figure:not(.asked)", similar).map((figure) => figure.cloneNode(true)));
    }
    one(".caption", viewer).replaceChildren(...words, ...(similar ? [others] : []));
    one(".place", viewer).textContent = `${place + 1} of ${series.length}`;
  };
  const enlarge = (frame) => {
    const group = frame.closest("ul, .wide");
    series = all(".zoom", group).filter((f) => f.offsetParent !== null);
    place = series.indexOf(frame);
    step(0);
    viewer.showModal();
  };
  if (viewer) {
    for (const frame of all(".zoom")) {
      if (!one("img", frame)) continue;
      frame.tabIndex = 0;
      frame.setAttribute("role", "button");
      frame.setAttribute("aria-label", `Enlarge: ${one("img", frame).alt}`);
      frame.addEventListener("click", () => enlarge(frame));
      frame.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        enlarge(frame);
      });
    }
    for (const made of all("[data-step]", viewer)) made.addEventListener("click", () => step(Number(made.dataset.step)));
    one("[data-close]", viewer).addEventListener("click", () => viewer.close());
    viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
    viewer.addEventListener("keydown", (event) => {
      if (event.key === "ArrowRight") step(1);
      if (event.key === "ArrowLeft") step(-1);
    });
    viewer.addEventListener("close", () => series[place]?.focus());
  }

  // ------------------------------------------------------------------------------------------------- threshold
  // Quantile of the standard normal distribution; Acklam's rational approximation, error below 1.2e-9 relative.
  const probit = (p) => {
    const a = [-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.357751867269, -30.66479806614716, 2.506628277459239];
    const b = [-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572];
    const c = [-0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968, 2.938163982698783];
    const d = [0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416];
    const poly = (k, x) => k.reduce((sum, v) => sum * x + v, 0);
    if (p < 0.02425) return poly(c, Math.sqrt(-2 * Math.log(p))) / poly([...d, 1], Math.sqrt(-2 * Math.log(p)));
    if (p > 1 - 0.02425) return -probit(1 - p);
    const q = p - 0.5;
    return (poly(a, q * q) * q) / poly([...b, 1], q * q);
  };
  const explore = (section) => {
    const data = JSON.parse(one(".threshold-data", section).textContent);
    const slider = one("[data-threshold]", section);
    const select = one("[data-class]", section);
    const flips = all(".flip", section);
    const clip = (rate) => probit(Math.min(Math.max(rate, data.rates[0]), data.rates[1]));
    const [low, high] = data.rates.map(probit);
    const { left, right, top, bottom } = data.frame;
    const at = (x, y) => [left + x * (right - left), bottom - y * (bottom - top)];
    const points = (c, i) => {
      const [tp, fp] = data.counts[c].map((n) => n[i]);
      const [positives, negatives] = data.totals[c];
      const [tpr, fpr] = [tp / positives, fp / negatives];
      const scaled = (rate) => (clip(rate) - low) / (high - low);
      return { tp, fp, fn: positives - tp, tn: negatives - fp, recall: tpr, fpr, precision: tp / (tp + fp),
        accuracy: (tp + negatives - fp) / (positives + negatives),
        roc: at(fpr, tpr), pr: at(tpr, tp / (tp + fp)), det: at(scaled(fpr), scaled(1 - tpr)) };
    };
    const finite = ([x, y]) => Number.isFinite(x) && Number.isFinite(y);
    const put = (name, text) => all(`[data-out="${name}"]`, section).forEach((element) => { element.textContent = text; });
    const probability = ([, probs], c) => (probs.find(([i]) => i === c) ?? [c, 0])[1];
    const move = () => {
      const c = select ? Number(select.value) : data.positive;
      const i = Math.round(Number(slider.value) * data.steps);
      const threshold = i / data.steps;
      const now = points(c, i);
      for (const name of ["tp", "fp", "fn", "tn"]) put(name, number(now[name]));
      for (const name of ["accuracy", "precision", "recall", "fpr"]) put(name, percent(now[name]));
      put("threshold", String(threshold));
      for (const kind of ["roc", "pr", "det"]) {
        const dot = one(`.dot-${kind}`, section);
        if (finite(now[kind])) [dot.cx.baseVal.value, dot.cy.baseVal.value] = now[kind];
      }
      let shown = 0;
      flips.forEach((item, k) => {
        const p = probability(data.images[k], c);
        const flipped = (p >= threshold) !== (p >= data.saved);
        const rest = data.two ? data.classes[1 - c] : `not ${data.classes[c]}`;
        item.hidden = threshold !== data.saved && !flipped;
        one("[data-now]", item).textContent = p >= threshold ? data.classes[c] : rest;
        one("[data-p]", item).textContent = percent(p);
        one(".verdict", item).classList.toggle("agreed", (p >= threshold) === (data.images[k][0] === c));
        shown += flipped ? 1 : 0;
      });
      const note = one("[data-flips]", section);
      if (note) note.textContent = threshold === data.saved ? "Move the threshold to see the images whose prediction changes."
        : `${shown} of these ${flips.length} images change their prediction between ${data.saved} and ${threshold}.`;
    };
    const draw = () => {
      const c = select ? Number(select.value) : data.positive;
      put("name", data.classes[c]);
      put("rest", data.two ? data.classes[1 - c] : "any other class");
      const every = Array.from({ length: data.steps + 1 }, (_, i) => points(c, i));
      for (const kind of ["roc", "pr", "det"]) {
        const path = every.map((p) => p[kind]).filter(finite).map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
        one(`.moving-${kind}`, section)?.setAttribute("d", `M${path}`);
      }
      move();
    };
    slider.addEventListener("input", () => {
      const folded = one(".flips", section);
      if (folded) folded.open = true;
      move();
    });
    select?.addEventListener("change", draw);
    one("[data-saved]", section).addEventListener("click", () => { slider.value = data.saved; move(); });
    move();
  };
  for (const section of all(".threshold")) explore(section);
})();
