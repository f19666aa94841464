// Keys for the buttons of the rating page, and how long somebody looked. The page works without this file.
"use strict";

(() => {
  const SETTLE = 300; // milliseconds: a second click or a key held down is meant for the screen before
  const vote = document.getElementById("vote");
  const note = document.getElementById("note");
  const help = document.getElementById("help");
  const opened = performance.now();
  let seen = 0;
  let since = document.hidden ? null : opened;
  let sent = false;

  function looked() {
    return seen + (since === null ? 0 : performance.now() - since);
  }

  document.addEventListener("visibilitychange", () => {
    seen = looked();
    since = document.hidden ? null : performance.now();
  });

  document.addEventListener("submit", (event) => {
    if (sent || performance.now() - opened < SETTLE) {
      event.preventDefault();
      return;
    }
    sent = true;
    if (event.target === vote) vote.elements.seconds.value = (looked() / 1000).toFixed(2);
  });

  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload(); // gone back to: what it shows may have its vote already
  });

  function toggle(details) {
    details.open = !details.open;
    const text = details.querySelector("textarea");
    if (text && details.open) text.focus();
  }

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, input");
    if (event.key === "Escape") {
      for (const details of [note, help]) if (details) details.open = false;
      document.activeElement.blur();
      return;
    }
    if (typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n" && note) toggle(note);
    else if (event.key === "?" && help) toggle(help);
    else {
      const button = document.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
      if (!button) return;
      button.click();
    }
    event.preventDefault();
  });
})();
