// The page: one connection, one video that is open, and keys.

import {Colours} from "./colours.js";
import {Connection, readToken} from "./connection.js";
import {named, percent, seconds} from "./format.js";
import {labelled, Marking} from "./marking.js";
import {Overview} from "./overview.js";
import {Player} from "./player.js";
import {at, moved, reassigned, removed, split} from "./segments.js";
import {keptTheme, toggleTheme} from "./theme.js";
import {Track} from "./track.js";
import {Video} from "./video.js";

const AROUND_S = 7.5;  // a doubtful boundary is shown with so many seconds before and after it

const byId = (id) => document.getElementById(id);
const ask = (path, options) => connection.ask(path, options);
const videos = new Map();  // those that were opened, with what can be undone
let steps = [], colours = new Colours([], new Set()), video = null, selected = null, known = false, opening = 0;

const overview = new Overview({open: (name, frame) => open(name, frame).then(show)});
const player = new Player(byId("picture"), ask, {
  moved(frame) {
    track.follow(frame);
    describe();
  },
  failed(why) {
    byId("unseen").hidden = !why;
    byId("unseen").textContent = why;
  },
});
const marking = new Marking(overview, {
  open: (name) => open(name, null),
  go(frame) {
    player.stop();
    select(null);
    player.go(frame);
  },
  changed: () => draw(),
  told: tell,
});
const track = new Track(byId("track"), {
  go: (frame) => {
    player.stop();
    player.go(frame);
  },
  select: (index) => select(index),
  dragged: (segments) => change(segments, selected),
});

const connection = new Connection(readToken(), {
  state(state) {
    document.body.dataset.connection = state;
    byId("connection").textContent = {
      connected: "connected",
      lost: "not connected; trying again …",
      denied: "This page is not allowed to see the videos. Open the address that edge-hal correct has printed.",
    }[state];
    if (state === "connected") load();
  },
  message(body) {
    if (body.type === "work") {
      overview.work(body);
    } else if (body.type === "reload") {
      load();
    } else if (body.type === "video") {
      overview.setRow(body);
      videos.get(body.name)?.hear(body.revision);
    }
  },
});

// --- the task -----------------------------------------------------------------------------------

async function load() {
  const answer = await ask("/data/task").catch(() => null);
  if (!answer) return;
  const body = await answer.json();
  if (!answer.ok) return tell(body.error);
  byId("task").textContent = body.task;
  document.title = `${body.task} · edge-hal correct`;
  if (body.steps.join("\n") !== steps.join("\n")) {
    steps = body.steps;
    colours = new Colours(body.order, new Set());
    for (const list of [byId("step"), byId("begins")]) list.replaceChildren(...body.order.map((step) => new Option(named(step), step)));
  }
  byId("advice").textContent = body.advice;
  overview.setRows(body.videos);
  for (const each of videos.values()) {
    if (each.unsaved) each.save();
    else each.reload();
  }
  if (!known) {
    known = true;
    const wanted = sessionStorage.getItem("edge-hal-video");
    open(overview.rows.has(wanted) ? wanted : overview.order()[0], null);
  }
}

async function open(name, frame) {
  const turn = opening += 1;
  let opened = videos.get(name);
  if (!opened) {
    const answer = await ask(`/data/video?name=${encodeURIComponent(name)}`).catch(() => null);
    const body = await answer?.json();
    if (turn !== opening) return;  // another one was opened meanwhile
    if (!answer?.ok) return tell(body?.error ?? "no connection");
    opened = new Video(body, ask, {changed: () => opened === video && draw(), told: tell});
    videos.set(name, opened);
  }
  video = opened;
  sessionStorage.setItem("edge-hal-video", name);
  byId("editor").hidden = false;
  byId("editor").dataset.video = name;
  overview.select(name);
  track.open(video, colours);
  player.open(video, frame ?? 0);
  select(frame === null ? null : boundaryAt(frame));
  if (frame !== null) track.look(frame - AROUND_S * video.body.rate_hz, Math.min(video.body.length, 2 * AROUND_S * video.body.rate_hz));
  draw();
}

const boundaryAt = (frame) => {
  const index = video.segments.findIndex(([, first], place) => place > 0 && first === frame);
  return index < 0 ? null : index;
};

// On a phone the list is above the video.
function show() {
  if (matchMedia("(max-width: 52rem)").matches) byId("editor").scrollIntoView();
}

async function next() {
  const found = overview.next();
  if (!found) return tell("No doubtful boundary is left that you have not seen.");
  overview.see(found.name, found.frame);
  await open(found.name, found.frame);
  show();
  const [before, after] = [video.segments[selected - 1], video.segments[selected]];
  if (after) tell(`${found.name}: ${named(before[0])} to ${named(after[0])} at ${time(found.frame)}, ${percent(found.sure)} certain`);
}

// --- corrections --------------------------------------------------------------------------------

function select(index) {
  selected = track.selected = index;
  track.dirty = true;
  describe();
}

// `keep`: the boundary that stays selected.
function change(segments, keep) {
  video.change(segments);
  select(keep !== null && keep > 0 && keep < video.segments.length ? keep : null);
}

// The selected boundary, else the nearest one.
function setBoundary() {
  const {segments} = video;
  if (segments.length < 2) return;
  const near = (index) => Math.abs(segments[index][1] - player.frame);
  const index = selected ?? segments.map((_, place) => place).slice(1).reduce((best, each) => (near(each) < near(best) ? each : best), 1);
  const found = moved(segments, index, player.frame, video.body.length);
  change(found, index);
  tell(`${named(found[index - 1][0])} to ${named(found[index][0])} at ${time(found[index][1])}`);
  player.go(found[index][1]);
}

function splitHere() {
  const place = at(video.segments, player.frame);
  byId("begins").value = video.segments[place + 1]?.[0] ?? video.segments[place][0];
  byId("choose").showModal();
}

byId("choose").addEventListener("close", () => {
  const {returnValue} = byId("choose");
  byId("choose").returnValue = "";
  byId("track").focus();
  if (returnValue !== "split") return;
  const found = split(video.segments, player.frame, byId("begins").value);
  change(found, at(found, player.frame));
});

function removeHere() {
  change(removed(video.segments, at(video.segments, player.frame)), null);
}

byId("step").addEventListener("change", (event) => {
  change(reassigned(video.segments, at(video.segments, player.frame), event.target.value), selected);
  byId("track").focus({preventScroll: true});  // the keys act on the page again
});

function jump(by) {
  const {segments} = video, {frame} = player;
  const place = by < 0 ? segments.findLastIndex(([, first]) => first < frame) : segments.findIndex(([, first]) => first > frame);
  player.stop();
  player.go(place < 0 ? (by < 0 ? 0 : video.body.length - 1) : segments[place][1]);
  select(place > 0 ? place : null);
}

const step = (frames) => {
  player.stop();
  player.go(player.frame + frames);
};

const actions = {
  before: () => jump(-1), after: () => jump(1), back: () => step(-1), forth: () => step(1), play: () => player.toggle(),
  in: () => track.zoom(0.5), out: () => track.zoom(2), all: () => track.all(),
  set: setBoundary, split: splitHere, remove: removeHere,
  mark: () => marking.mark(player.frame), skip: () => marking.skip(),
  undo: () => { video.undo(); select(null); }, redo: () => { video.redo(); select(null); },
  accept: () => video.request("accept").then(load), withdraw: () => video.request("withdraw").then(load), discard: () => video.request("discard"),
};
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => video && actions[button.dataset.do]());
byId("next").addEventListener("click", next);
byId("theme").addEventListener("click", theme);
byId("keys").addEventListener("click", () => byId("help").showModal());
byId("train").addEventListener("click", () => training("start"));
byId("stop").addEventListener("click", () => training("stop"));

async function training(what) {
  const answer = await ask("/data/training", {method: "POST", body: JSON.stringify({do: what})}).catch(() => null);
  const body = answer ? await answer.json() : {error: "no connection"};
  if (body.error) tell(body.error);
  else overview.work(body);
}

function theme() {
  toggleTheme();
  track.dirty = true;
}

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("select, input, dialog, summary");
  if (typing || event.altKey || byId("help").open || byId("choose").open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    const done = {z: event.shiftKey ? actions.redo : actions.undo, y: actions.redo}[key];
    if (!done || !video) return;
    done();
    return event.preventDefault();
  }
  const onButton = event.target.closest?.("button") && (key === "Enter" || key === " ");
  const found = onButton ? null : {
    n: next, t: theme, "?": () => byId("help").showModal(),
    ...(video ? {
      Enter: setBoundary, " ": actions.play, ArrowUp: actions.before, ArrowDown: actions.after, s: splitHere, Delete: removeHere, Backspace: removeHere,
      ArrowLeft: () => step(event.shiftKey ? -Math.round(video.body.rate_hz) : -1), ArrowRight: () => step(event.shiftKey ? Math.round(video.body.rate_hz) : 1),
      Home: () => step(-video.body.length), End: () => step(video.body.length), r: () => byId("step").focus(), a: actions.accept,
      m: actions.mark, x: actions.skip, Escape: () => marking.end(),
      "[": () => open(overview.beside(-1), null), "]": () => open(overview.beside(1), null),
      "+": actions.in, "=": actions.in, "-": actions.out,
    } : {}),
  }[key];
  if (!found) return;
  if (!(event.repeat && key === "m")) found();  // a key that is held marks one picture
  event.preventDefault();
});
addEventListener("beforeunload", (event) => {
  if ([...videos.values()].some((each) => each.unsaved)) event.preventDefault();
});
keptTheme();

// --- what is shown ------------------------------------------------------------------------------

const time = (frame) => `${(frame / video.body.rate_hz).toFixed(2)} s`;

function tell(text) {
  byId("told").textContent = text;
  byId("detail").textContent = text;
}

function describe() {
  if (!video) return;
  const {frame} = player, {length} = video.body;
  const place = at(video.segments, frame);
  byId("place").textContent = `${time(frame)} of ${time(length)}, frame ${frame}`;
  byId("play").textContent = player.playing ? "■" : "▶";
  byId("step").value = video.segments[place][0];
  byId("set").disabled = video.segments.length < 2;
  for (const [index, row] of [...byId("segments").tBodies[0].rows].entries()) row.toggleAttribute("aria-current", index === place);
  if (selected !== null && video.segments[selected]) {
    const sure = video.certainty(selected);
    const words = sure === null ? "certainty not known yet" : sure === 1 ? "certain" : `${percent(sure)} certain to half a second`;
    byId("detail").textContent = `boundary ${named(video.segments[selected - 1][0])} → ${named(video.segments[selected][0])} at ${time(video.segments[selected][1])}: ${words}`;
  }
}

function draw() {
  const {body, segments} = video;
  marking.show(video);
  track.video = video;
  track.asked = marking.asked;
  track.dirty = true;
  byId("name").textContent = video.name;
  byId("state").textContent = {accepted: "accepted: training uses it", draft: "corrected, not accepted: training does not use it yet",
    found: "as training found it", suggested: "taken from a recording with the run's own segments: training leaves it out until you accept it", guess: "no run knows this video: the steps are spread evenly"}[body.state] + (body.parts.length ? ". Training uses what is marked." : "");
  byId("editor").dataset.state = body.state;
  byId("accept").disabled = body.state === "accepted" || video.unsaved;
  byId("withdraw").hidden = body.state !== "accepted";
  byId("discard").hidden = body.state !== "draft";
  byId("mark").textContent = marking.question ? "This picture shows it (M)" : "Mark a picture of each step (M)";
  byId("skip").hidden = !marking.question;
  if (byId("asked").textContent !== marking.question) byId("asked").textContent = marking.question;
  byId("undo").disabled = !video.done.length;
  byId("redo").disabled = !video.undone.length;
  byId("saved").textContent = video.failed || (video.saving ? "saving …" : video.unsaved ? "not saved" : body.state === "draft" ? "saved" : "");
  byId("saved").classList.toggle("bad", Boolean(video.failed));
  byId("editor").dataset.saved = String(!video.unsaved && !video.saving);
  byId("note").hidden = !body.note;
  if (byId("note").textContent !== body.note) byId("note").textContent = body.note;
  byId("unseen").hidden = body.pictures;
  if (!body.pictures) byId("unseen").textContent = "This video has vectors and no pictures.";
  byId("segments").tBodies[0].replaceChildren(...segments.map(([name, first], index) => {
    const row = document.createElement("tr");
    const sure = index ? video.certainty(index) : 1;
    const go = document.createElement("button");
    go.textContent = time(first);
    go.addEventListener("click", () => {
      player.stop();
      player.go(first);
      select(index || null);
    });
    row.insertCell().append(go);
    for (const text of [named(name), seconds(((segments[index + 1]?.[1] ?? body.length) - first) / body.rate_hz), index === 0 ? "" : sure === null ? "…" : percent(sure), labelled(video, index) ? "✓" : ""]) row.insertCell().textContent = text;
    row.cells[1].style.setProperty("--step", colours.of(name));
    return row;
  }));
  describe();
}

function frame() {
  requestAnimationFrame(frame);
  track.draw();
}
requestAnimationFrame(frame);
