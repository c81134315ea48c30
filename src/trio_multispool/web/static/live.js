// Keeps a page as the server shows it now: it is sent anew when it changes, and what differs is put in its place.
// What is sent is HTML that the server has rendered; it is parsed as a document of its own, in which nothing runs.
"use strict";

(() => {
  const live = document.querySelector("[data-live]");
  const status = document.getElementById("status");
  const told = document.getElementById("told");
  const hold = document.getElementById("hold");
  if (!live || !window.EventSource) return;

  let source = null;
  let last = new Date();

  const tell = (state, text) => {
    if (status.dataset.state !== state) status.dataset.state = state;
    if (told.textContent !== text) told.textContent = text;
  };

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE && node.id ? node.id : null);

  // Make `old` like `fresh`, and keep what a person has done: focus, choices, what is open, what is typed.
  const settle = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    for (const { name } of [...old.attributes]) {
      const kept = name === "open" || (name === "hidden" && old.dataset.all !== undefined);
      if (!fresh.hasAttribute(name) && !kept) old.removeAttribute(name);
    }
    for (const { name, value } of [...fresh.attributes]) {
      const kept = name === "open" || (name === "hidden" && old.dataset.all !== undefined);
      if (!kept && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const byKey = new Map();
    for (const child of old.children) if (keyOf(child)) byKey.set(keyOf(child), child);
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const key = keyOf(next);
      let match = key ? byKey.get(key) : null;
      if (!key && at && !keyOf(at) && at.nodeName === next.nodeName) match = at;
      if (match && match.nodeName === next.nodeName) {
        if (match === at) at = at.nextSibling;
        else old.insertBefore(match, at);
        if (match.nodeType === Node.ELEMENT_NODE) settle(match, next);
        else if (match.nodeValue !== next.nodeValue) match.nodeValue = next.nodeValue;
      } else {
        old.insertBefore(document.importNode(next, true), at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };

  const show = (html) => {
    const parsed = new DOMParser().parseFromString(html, "text/html");
    const fresh = document.createElement("div");
    for (const { name, value } of live.attributes) fresh.setAttribute(name, value);
    fresh.append(...document.importNode(parsed.body, true).childNodes);
    settle(live, fresh);
    prepare();
  };

  const connect = () => {
    source = new EventSource(location.href);
    source.onopen = () => tell("live", "Live");
    source.onmessage = (event) => {
      last = new Date();
      tell("live", "Live");
      show(event.data);
    };
    source.onerror = () => {
      tell("gone", `The server does not answer. This is what was seen at ${last.toLocaleTimeString()}.`);
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 3000);
    };
  };

  // The browser gives up for good when it is refused: a server that came back has another token.
  const again = () => {
    if (source && source.readyState === EventSource.CLOSED) connect();
  };

  const disconnect = () => {
    if (source) source.close();
    source = null;
  };

  hold.hidden = false;
  hold.addEventListener("click", () => {
    const held = hold.getAttribute("aria-pressed") !== "true";
    hold.setAttribute("aria-pressed", String(held));
    hold.textContent = held ? "Go on" : "Hold";
    if (held) {
      disconnect();
      tell("still", `As of ${last.toLocaleTimeString()}`);
    } else connect();
  });

  // A tab that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => {
    if (hold.getAttribute("aria-pressed") === "true") return;
    if (document.hidden) disconnect();
    else if (!source) connect();
  });

  const boxes = () => [...document.querySelectorAll('input[type=checkbox][name="name"]')];
  const prepare = () => {
    const all = document.querySelector("[data-all]");
    if (!all) return;
    all.hidden = false;
    const chosen = boxes().filter((box) => box.checked).length;
    all.checked = chosen > 0 && chosen === boxes().length;
    all.indeterminate = chosen > 0 && chosen < boxes().length;
  };
  document.addEventListener("change", (event) => {
    if (event.target.dataset.all !== undefined) for (const box of boxes()) box.checked = event.target.checked;
    prepare();
  });

  prepare();
  connect();
})();
