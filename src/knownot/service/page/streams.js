// Streams that are watched: one at a time, looked at again every ten seconds.

import { ask } from "./api.js";

const $ = (id) => document.getElementById(id);
let names = [], showing = 0;

async function show() {
  const name = names.includes(decodeURIComponent(location.hash.slice(1))) ? decodeURIComponent(location.hash.slice(1)) : names[0];
  const mine = ++showing;
  for (const link of $("names").children) link.toggleAttribute("aria-current", link.textContent === name);
  try {
    const stream = await (await ask(`v1/streams/${encodeURIComponent(name)}`)).json();
    if (mine !== showing) return;
    const made = new DOMParser().parseFromString(stream.html, "text/html");
    $("stream").replaceChildren(...made.body.childNodes);
    $("said").textContent = `Of the classifier ${stream.model}; as it was at ${new Date().toLocaleTimeString()}.`;
  } catch (error) {
    $("stream").replaceChildren();
    $("said").textContent = error.message;
  }
  $("title").textContent = document.title = `Stream ${name}`;
  document.documentElement.dataset.ready = name;
}

async function start() {
  names = (await (await ask("v1/streams")).json()).streams;
  $("names").replaceChildren(...names.map((name) => {
    const link = document.createElement("a");
    link.href = `#${encodeURIComponent(name)}`;
    link.textContent = name;
    return link;
  }));
  $("names").hidden = names.length < 2;
  if (!names.length) { $("said").textContent = "No stream is shown here: knownot serve … --stream NAME=STATE"; return; }
  addEventListener("hashchange", show);
  setInterval(show, 10_000);
  await show();
}

start().catch((error) => { $("said").textContent = error.message; });
