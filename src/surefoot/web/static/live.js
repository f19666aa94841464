// Looks again at runs that go on, turns prompts and steps by the arrow keys, and takes other links' own keys. The pages
// work without this file.
"use strict";

(() => {
  const EVERY = 10000; // milliseconds
  const live = () => document.getElementById("live");

  async function look() {
    if (document.hidden || live().contains(document.activeElement)) return; // never under somebody's hands
    let text;
    try {
      const answer = await fetch(location.href);
      if (!answer.ok) throw new Error(String(answer.status));
      text = await answer.text();
    } catch {
      say("The server does not answer; what you see is the last it said.");
      return;
    }
    const open = [...live().querySelectorAll("details[id]")].map((details) => [details.id, details.open]);
    const found = new DOMParser().parseFromString(text, "text/html");
    live().replaceWith(document.adoptNode(found.getElementById("live")));
    for (const [id, was] of open) document.getElementById(id).open = was;
    document.title = found.title;
    say(`Looked at ${new Date().toLocaleTimeString()}; looks again every ${EVERY / 1000} seconds.`);
  }

  function say(sentence) {
    document.getElementById("state").textContent = sentence;
  }

  if (live() && ("goesOn" in live().dataset || !live().querySelector("table"))) {
    say(`Looks again every ${EVERY / 1000} seconds.`);
    setInterval(look, EVERY);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.target.matches("input, textarea")) return;
    const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    const link = document.querySelector(way ? `a[rel=${way}]` : `a[data-key="${CSS.escape(event.key)}"]`);
    if (link) link.click();
  });
})();
