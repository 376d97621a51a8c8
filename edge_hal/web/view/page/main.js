// The page: streams by name, one connection, keys, and what is drawn when.

import {Connection, readToken} from "./connection.js";
import {Stream} from "./store.js";
import {StreamView, describe} from "./view.js";
import {named} from "./format.js";
import {keptTheme, toggleTheme} from "./theme.js";

const views = new Map();
const dirty = new Set();
const untold = new Set();  // streams that this connection has not told of yet
let connected = false;
let troubles = [];
let recorded = false;  // the server has recordings

const byId = (id) => document.getElementById(id);

const connection = new Connection(readToken(), {
  state(state) {
    connected = state === "connected";
    troubles = [];  // the server tells them anew
    header(state);
    for (const view of views.values()) dirty.add(view);
  },
  message(body) {
    if (body.type === "hello") hello(body);
    else if (body.type === "procedure") refresh(body.stream).stream.setSteps(body.steps);
    else if (body.type === "troubles") {
      troubles = body.whys;
      header("connected");
    }
    else if (typeof body.stream === "string") receive(body);
  },
});

function refresh(name) {
  let view = views.get(name);
  if (!view) {
    view = new StreamView(new Stream(name), byId("stream"), {connection, connected: () => connected});
    views.set(name, view);
    byId("empty").hidden = true;
    const main = byId("streams");
    const after = [...main.querySelectorAll("section")].find((section) => section.dataset.stream > name);
    main.insertBefore(view.section, after ?? null);
    document.body.classList.toggle("many", views.size > 1);
  }
  dirty.add(view);
  return view;
}

function header(state) {
  document.body.dataset.connection = troubles.length ? "trouble" : state;
  byId("connection").textContent = troubles.length ? troubles.join(" · ") : {
    connected: "connected",
    lost: "not connected; trying again …",
    denied: "This page is not allowed to see the streams. Open the address that edge-hal view has printed.",
  }[state];
}

function receive(event) {
  const {stream} = refresh(event.stream);
  if (untold.delete(event.stream)) stream.forget();
  stream.live = true;
  stream.recorded = recorded;
  stream.heard = performance.now();
  stream.add(event);
  if (event.type === "deviation") byId("told").textContent = `${named(event.stream)}: ${describe(event)}`;
}

function hello({streams, recorded: has}) {
  recorded = has;
  for (const name of views.keys()) untold.add(name);
  for (const [name, known] of Object.entries(streams)) {
    const {stream} = refresh(name);
    untold.delete(name);
    stream.forget();
    stream.live = known.live;
    stream.recorded = recorded;
    for (const [session, t_ns, action, probability] of known.now) stream.addNow(session, t_ns, action, probability);
    for (const event of [...known.events, ...known.reports]) stream.add(event);
    stream.older = known.older;
    const told = known.reports.map((report) => report.run?.utc_ns / 1e6);
    const silent_ms = Math.max(0, Date.now() - Math.max(...told));
    stream.heard = told.length ? performance.now() - silent_ms : -Infinity;
  }
}

// --- keys and buttons ---------------------------------------------------------------------------

function setOperator(on) {
  document.body.classList.toggle("operator", on);
  byId("operator").setAttribute("aria-pressed", String(on));
  localStorage.setItem("edge-hal-operator", on ? "1" : "");
  for (const view of views.values()) dirty.add(view);
}

function select(number) {
  const canvas = byId("streams").querySelectorAll("section")[number - 1]?.querySelector("canvas");
  canvas?.scrollIntoView({block: "center"});
  canvas?.focus();
}

const toggleOperator = () => setOperator(!document.body.classList.contains("operator"));
byId("operator").addEventListener("click", toggleOperator);
const theme = () => {
  toggleTheme();
  for (const view of views.values()) dirty.add(view);
};
byId("theme").addEventListener("click", theme);
byId("keys").addEventListener("click", () => byId("help").showModal());
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.key === "o" || event.key === "O") toggleOperator();
  else if (event.key === "t" || event.key === "T") theme();
  else if (event.key === "?") byId("help").showModal();
  else if (/^[1-9]$/.test(event.key)) select(Number(event.key));
});
keptTheme();
if (localStorage.getItem("edge-hal-operator")) setOperator(true);

// --- drawing ------------------------------------------------------------------------------------

setInterval(() => { for (const view of views.values()) dirty.add(view); }, 500);

// A stream that cannot be shown says so, and holds up no other.
function show(view, work) {
  try {
    work();
  } catch (error) {
    console.error(error);
    view.fail(error);
  }
}

function frame() {
  requestAnimationFrame(frame);
  const changed = [...dirty];
  dirty.clear();
  for (const view of changed) show(view, () => view.update());
  for (const view of views.values()) show(view, () => view.draw());
}
requestAnimationFrame(frame);
