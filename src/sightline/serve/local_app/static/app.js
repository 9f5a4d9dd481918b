// What every page of the app uses: requests with the token, and messages.
"use strict";
const sightline = (() => {
  const token = document.querySelector("meta[name=csrf]")?.content ?? "";

  /** Show a message in the corner; it disappears after some seconds unless it says that something failed. */
  const say = (text, failed = false) => {
    const box = document.getElementById("message");
    box.textContent = text;
    box.hidden = !text;
    box.classList.toggle("failed", failed);
    clearTimeout(say.timer);
    if (text && !failed) say.timer = setTimeout(() => { box.hidden = true; }, 4000);
  };

  /** Return the JSON answer of the app. Throws an Error with its reason, and the HTTP `status`. */
  const call = async (url, options = {}) => {
    let answer;
    try {
      answer = await fetch(url, { ...options, headers: { accept: "application/json", ...options.headers } });
    } catch {
      throw Object.assign(new Error("The app does not answer; is `sightline open` still running?"), { status: 0 });
    }
    const value = await answer.json().catch(() => ({}));
    if (!answer.ok) {
      const hint = value.hint ? ` (${value.hint})` : "";
      throw Object.assign(new Error(`${value.error ?? answer.statusText}${hint}`), { status: answer.status });
    }
    return value;
  };

  /** Send values, or a FormData, as a form with the token. */
  const post = (url, values = {}) => {
    const body = values instanceof FormData ? values : new URLSearchParams(values);
    return call(url, { method: "POST", body, headers: { "x-csrf-token": token } });
  };

  return { say, call, post, get: (url) => call(url) };
})();
