// Follows the store: on news the page is read again and what differs is changed in place, so that focus, scrolling and
// what is typed stay. Without this file everything can still be read, by reloading.

const SILENCE = 15_000; // ms without a sign of life of the command, which gives one every 5 s
const root = document.documentElement;
const lost = document.getElementById("lost");
const said = document.getElementById("said");
// What was confirmed, or done, stays as it was said; only the head of such a page follows the store.
const live = document.querySelector("main[data-live]") !== null;
let heard = Date.now();
let reading = false;
let again = false;
let shownContact = null;
let unread = ""; // why the page could not be read again, in words; empty while it can

root.classList.add("script");
// The token has become a cookie; it need not stay in the address, nor in the browser's history.
const address = new URL(location.href);
if (address.searchParams.has("token")) {
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

// Attributes that are set here, and that no answer of the server's takes away.
const OURS = ["hidden", "tabindex", "role", "aria-label"];

// What scrolls sideways is a place to stop at for the keyboard, and has a name; what does not is neither.
function makeReachable() {
  for (const each of document.querySelectorAll(".scroll")) {
    if (each.scrollWidth > each.clientWidth) {
      each.tabIndex = 0;
      each.setAttribute("role", "region");
      each.setAttribute("aria-label", each.dataset.named ?? each.querySelector("caption").textContent);
    } else for (const name of ["tabindex", "role", "aria-label"]) each.removeAttribute(name);
  }
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE && node.id ? node.id : null);

// Makes `old` look like `wanted`. Elements with the same id stay the same elements, wherever they move.
function morph(old, wanted) {
  for (const { name, value } of wanted.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!wanted.hasAttribute(name) && !OURS.includes(name)) old.removeAttribute(name);
  const named = new Map([...old.children].filter(keyOf).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = keyOf(next);
    let same = key ? named.get(key) : null;
    if (!same && at && !keyOf(at) && !key && at.nodeName === next.nodeName) same = at;
    if (!same || same.nodeName !== next.nodeName) {
      const made = document.importNode(next, true);
      if (key && made.nodeName === "TR") made.classList.add("fresh");
      old.insertBefore(made, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same.nodeType === Node.ELEMENT_NODE) morph(same, next);
    else if (same.nodeValue !== next.nodeValue) same.nodeValue = next.nodeValue;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

async function readAgain() {
  if (reading) {
    again = true;
    return;
  }
  reading = true;
  try {
    const signal = AbortSignal.timeout(SILENCE);
    const answer = await fetch(live ? location.href : "/leases", { credentials: "same-origin", cache: "no-store", signal });
    const text = await answer.text();
    if (!answer.headers.get("content-type")?.startsWith("text/html")) throw new Error(`answer ${answer.status}`);
    const found = new DOMParser().parseFromString(text, "text/html");
    if (live) document.title = found.title;
    root.dataset.now = found.documentElement.dataset.now;
    for (const part of ["header.top", "footer"]) morph(document.querySelector(part), found.querySelector(part));
    if (live) morph(document.querySelector("main"), found.querySelector("main"));
    drift = Number(root.dataset.now) - Date.now() / 1000;
    makeReachable();
    unread = "";
    if (Date.now() - heard <= SILENCE) lost.hidden = true;
  } catch (error) {
    unread = `This page could not be read again (${error.message}). What you see is as it was before; it is tried again.`;
    warn(unread);
  } finally {
    reading = false;
  }
  if (again) {
    again = false;
    await readAgain();
  }
}

// Ages, by the clock of the machine that serves the page.
let drift = Number(root.dataset.now) - Date.now() / 1000;
const units = [[90, 1, "s"], [5400, 60, "min"], [172800, 3600, "h"], [Infinity, 86400, "days"]];
function age(seconds) {
  const [, size, unit] = units.find(([limit]) => Math.abs(seconds) < limit);
  return `${Math.round(Math.abs(seconds) / size)} ${unit} ${seconds >= 0 ? "ago" : "ahead"}`;
}
function grow() {
  const now = Date.now() / 1000 + drift;
  for (const each of document.querySelectorAll("time[datetime] .age")) {
    const told = age(now - Date.parse(each.parentElement.dateTime) / 1000);
    if (each.textContent !== told) each.textContent = told;
  }
}

makeReachable();
addEventListener("resize", makeReachable);

// A status that is filled while it is hidden is not read aloud.
function warn(words) {
  lost.hidden = false;
  if (lost.textContent !== words) lost.textContent = words;
}

function tell(event) {
  heard = Date.now();
  if (!unread) lost.hidden = true;
  const news = JSON.parse(event.data);
  const flipped = shownContact !== null && shownContact !== news.connected;
  shownContact = news.connected;
  if (flipped) said.textContent = news.connected ? "The store answers again." : "The store is silent.";
  else if (news.words && live) said.textContent = news.words;
  if (event.type !== "beat" || flipped || unread) readAgain();
}

// A browser connects again by itself after a break, but never after a refusal; and it has few connections to one
// host, so a page that nobody sees gives its own back.
let source = null;
function follow() {
  source?.close();
  source = new EventSource("/events");
  for (const kind of ["hello", "beat", "changed"]) source.addEventListener(kind, tell);
}
follow();
document.addEventListener("visibilitychange", () => {
  if (document.hidden) source.close();
  else {
    heard = Date.now();
    follow();
  }
});
setInterval(() => {
  if (!document.hidden && source.readyState === EventSource.CLOSED) follow();
}, 10_000);

setInterval(() => {
  grow();
  if (!document.hidden && Date.now() - heard > SILENCE && lost.hidden) {
    const at = new Date(heard).toISOString().slice(11, 19);
    warn(`This page is not followed any more: configstore ui was heard last at ${at} UTC. What you see is as it was then. If it was started anew, open its address again.`);
  }
}, 1000);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    said.textContent = "Copied.";
    button.firstChild.nodeValue = "Copied";
  } catch {
    getSelection().selectAllChildren(button.previousElementSibling);
    said.textContent = "Selected: copy it with the keyboard.";
  }
});
