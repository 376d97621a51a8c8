// One stream on the page.

import {DEVIATION} from "./colours.js";
import {median, named, percent, seconds, timeOf} from "./format.js";
import {Pictures} from "./pictures.js";
import {Playback} from "./playback.js";
import {Timeline} from "./timeline.js";

const STALE_MS = 3000;
const SHOWN_CYCLES = 50, SHOWN_DEVIATIONS = 50;
const LAST_PASS_MS = 30_000;

export class StreamView {
  constructor(stream, template, {connection, connected}) {
    Object.assign(this, {stream, connection, connected, shownCycles: null});
    this.section = template.content.firstElementChild.cloneNode(true);
    this.section.dataset.stream = stream.name;
    this.section.setAttribute("aria-label", `stream ${stream.name}`);
    this.find(".name").textContent = stream.name;
    this.find(".picture").alt = `picture of ${stream.name}`;
    this.timeline = new Timeline(stream, this.find("canvas"), {
      older: () => this.loadOlder(),
      detail: (text) => put(this.find(".detail"), text),
      range: (text) => put(this.find(".range"), text),
      played: (segment) => this.play(segment),
    });
    this.playback = new Playback(this.find(".playback"), (path) => connection.ask(path));
    for (const button of this.section.querySelectorAll(".tools button")) {
      button.addEventListener("click", () => {
        const {timeline} = this;
        timeline.wantsAll = false;
        ({in: () => timeline.zoom(0.5), out: () => timeline.zoom(2), all: () => timeline.all(), live: () => timeline.follow()})[button.dataset.do]();
      });
    }
    const image = this.find(".picture");
    this.pictures = new Pictures(stream.name, image, connection, () =>
      Boolean(stream.heartbeat?.health?.preview) && !document.hidden && !document.body.classList.contains("operator") && this.state() !== "away");
  }

  find(selector) {
    return this.section.querySelector(selector);
  }

  async loadOlder() {
    const {stream} = this, {connections} = stream;
    stream.loading = true;
    try {
      const {events, older} = await this.askHistory();
      if (connections !== stream.connections) return;
      stream.prepend(events, older);
      stream.derive();
      this.timeline.dirty = true;
    } catch (error) {
      if (connections !== stream.connections) return;
      stream.older = null;
      put(this.find(".detail"), `Older events cannot be shown. ${error.message}`);
    }
    stream.loading = false;
  }

  // The recorded pictures of a segment; of one that goes on, those until now.
  async play(segment) {
    if (!segment || !this.stream.recorded) return this.playback.close();
    const begin = segment.t_ns / 1e6, length = (segment.end ?? this.stream.end()) - segment.begin;
    const found = await this.playback.play(segment.event.run?.session ?? "", begin, begin + length, named(segment.action));
    if (!found) put(this.find(".detail"), `${this.find(".detail").textContent} · its pictures were not recorded`);
  }

  async askHistory() {
    const query = new URLSearchParams({stream: this.stream.name, before: this.stream.older});
    const answer = await this.connection.ask(`/data/history?${query}`);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    return body;
  }

  // "live"; "away": not connected, or nothing was heard; "ended"; "stored": a journal without a run
  state() {
    const {stream} = this;
    if (!this.connected()) return "away";
    if (!stream.live) return "stored";
    if (stream.ended && stream.newest?.type === "end") return "ended";
    return performance.now() - stream.heard > STALE_MS ? "away" : "live";
  }

  // Called when something was received, and once a second.
  update() {
    const {stream, section} = this;
    stream.derive();
    const state = this.state();
    section.classList.toggle("stale", state === "away");
    section.classList.toggle("over", state === "ended" || state === "stored");
    const silent = seconds((performance.now() - stream.heard) / 1000);
    put(this.find(".state"), {
      live: "live",
      away: this.connected() ? `no news for ${silent}: what is shown is old` : "not connected: what is shown is old",
      ended: `the run ended (${stream.ended?.reason})`,
      stored: "from the journal, no run",
    }[state]);
    this.current(state);
    this.procedure(state);
    this.alert();
    this.deviations();
    this.cycles();
    this.health(state);
    this.pictures.update();
    this.timeline.dirty = true;
    section.dataset.events = stream.events.length;  // for tests
    if (stream.newest) section.dataset.seq = stream.newest.seq;
  }

  current(state) {
    const {stream} = this;
    const now = state === "ended" || state === "stored" ? null : stream.now;
    const action = now?.action ?? stream.action ?? stream.open?.action ?? (state === "ended" || state === "stored" ? stream.segments.at(-1)?.action : null);
    const step = this.find(".step");
    put(step, action ? named(action) : "nothing recognised yet");
    step.style.setProperty("--step", action ? stream.colours.of(action) : "transparent");
    this.find(".belief").hidden = !now;
    if (now) {
      this.find("meter").value = now.probability;
      put(this.find(".probability"), percent(now.probability));
      const passed = state === "live" ? (performance.now() - now.received) / 1000 : 0;
      const lasts = now.since ? (now.at.t_ns - now.since.t_ns) / 1e9 + passed : null;
      put(this.find(".since"), lasts === null ? "" : `for ${seconds(lasts)}`);
      const left = (quantile) => Math.max(0, (now.remaining_s?.[quantile] ?? 0) - passed);
      this.next(now.next, left);
    } else {
      this.next([], () => 0);
    }
    const final = stream.segments.at(-1);
    put(this.find(".final"), final ? `decided: ${named(final.action)} since ${timeOf(final.begin)} (confidence ${percent(final.confidence)})` : "");
  }

  next(following, left) {
    const [first, second] = following;
    put(this.find(".first"), first ? `next: ${named(first.action)}` : "");
    put(this.find(".chance"), !first ? "" : ` (${percent(first.probability)})${second ? ` or ${named(second.action)} (${percent(second.probability)})` : ""}`);
    put(this.find(".wait"), first ? `, in\u00a0about\u00a0${Math.round(left("p50"))}\u00a0s` : "");
    put(this.find(".spread"), first ? `\u00a0(${Math.round(left("p10"))}\u00a0to\u00a0${Math.round(left("p90"))})` : "");
  }

  procedure() {
    const {stream} = this, {pass} = stream;
    const names = stream.labels.length ? stream.labels : [...new Set(stream.segments.map((each) => each.action))];
    const steps = stream.steps ?? names.map((name) => ({name, optional: false, background: false}));
    const done = new Set(pass.actions.map((each) => each.action));
    const now = stream.now?.action ?? stream.action;
    const marks = {done: "✓", missing: "!", now: "▶", open: ""};
    const words = {done: "done", missing: "missing", now: "now", open: "not yet"};
    const text = JSON.stringify([steps.map((step) => step.name), [...done], [...pass.missing.keys()], now]);
    if (text === this.drawn) return;
    this.drawn = text;
    this.find(".procedure").replaceChildren(...steps.filter((step) => !step.background).map((step) => {
      const kind = step.name === now ? "now" : pass.missing.has(step.name) && !done.has(step.name) ? "missing" : done.has(step.name) ? "done" : "open";
      const item = element("li", "", kind);
      if (step.optional) item.classList.add("optional");
      item.style.setProperty("--step", stream.colours.of(step.name));
      item.append(element("span", marks[kind], "mark"), element("span", named(step.name)), element("span", `: ${words[kind]}${step.optional ? ", optional" : ""}`, "unseen"));
      if (kind === "now") item.setAttribute("aria-current", "step");
      return item;
    }));
  }

  alert() {
    const {stream} = this, last = stream.cycles.at(-1);
    let shown = stream.pass.deviations.filter((each) => !each.corrected);
    let head = "";
    if (!shown.length && last && last.event.deviations.length && stream.end() - last.end < LAST_PASS_MS) {
      const seqs = new Set(last.event.deviations.map((each) => each.seq));
      shown = stream.deviations.filter((each) => seqs.has(each.event.seq) && each.event.run?.session === last.event.run?.session && !each.corrected);
      head = "last pass: ";
    }
    const box = this.find(".alert");
    const newest = shown.at(-1);
    box.hidden = !newest;
    const more = shown.length > 1 ? ` (and ${shown.length - 1} more)` : "";
    put(box.querySelector("strong"), newest ? `${head}${brief(newest.event)}${more}` : "");
    put(this.find(".why"), newest ? reason(newest.event) : "");
  }

  deviations() {
    const {deviations} = this.stream;
    const key = deviations.length + deviations.filter((each) => each.corrected).length / 1e6;
    if (this.shownDeviations === key) return;
    this.shownDeviations = key;
    put(this.find(".deviations .count"), deviations.length ? `(${deviations.length})` : "(none)");
    this.find(".deviations ol").replaceChildren(...deviations.slice(-SHOWN_DEVIATIONS).reverse().map(({at, event, corrected}) => {
      const item = element("li", "", corrected ? "corrected" : "");
      item.append(element("time", timeOf(at)), element("strong", brief(event)), element("span", reason(event) + (corrected ? " (corrected later)" : "")));
      item.addEventListener("click", () => this.timeline.show(at + this.timeline.span / 2, this.timeline.span));
      return item;
    }));
  }

  cycles() {
    const {cycles} = this.stream;
    if (this.shownCycles === cycles.at(-1)) return;
    this.shownCycles = cycles.at(-1);
    const took = cycles.filter((each) => each.event.complete).map((each) => (each.end - each.begin) / 1000);
    put(this.find(".cycles .count"), cycles.length ? `(${cycles.length}${took.length ? `, median of the complete ones ${seconds(median(took))}` : ""})` : "(none)");
    const longest = Math.max(1, ...cycles.slice(-SHOWN_CYCLES).map((each) => each.end - each.begin));
    this.find(".cycles tbody").replaceChildren(...cycles.slice(-SHOWN_CYCLES).reverse().map(({begin, end, event}) => {
      const row = element("tr", "", event.complete && !event.deviations.length ? "" : "bad");
      const bar = element("td");
      const length = element("i", "", "bar");
      length.style.width = `${Math.round((100 * (end - begin)) / longest)}%`;
      bar.append(length, element("span", seconds((end - begin) / 1000)));
      const missing = event.missing.length ? `missing: ${event.missing.map(named).join(", ")}` : event.complete ? "complete" : "not complete";
      const kinds = [...new Set(event.deviations.map((each) => each.kind.replaceAll("_", " ")))];
      const when = element("td", timeOf(begin));
      when.title = new Date(begin).toISOString();
      row.append(when, bar, element("td", String(event.steps.length)), element("td", [missing, ...kinds].join("; ")));
      return row;
    }));
  }

  health(state) {
    const {stream} = this, beat = stream.heartbeat;
    const list = this.find(".health dl");
    if (!beat) {
      put(this.find(".health .count"), "");
      return list.replaceChildren(element("dt", "heartbeat"), element("dd", stream.live ? "none yet" : "none: no run"));
    }
    const {counters, delivery, health, run} = beat;
    const dropped = Object.entries(counters.dropped ?? {}).filter(([, count]) => count).map(([name, count]) => `${count} ${name}`).join(", ");
    const source = health.source ?? {}, mode = source.mode ?? {};
    const camera = source.state ? `${source.state}${mode.width ? `, ${mode.width}×${mode.height}` : ""}${source.connections > 1 ? `, opened ${source.connections} times` : ""}${source.state === "lost" && source.lost ? `: ${source.lost}` : ""}` : "file";
    const troubles = [...(delivery.troubles ?? [])];
    if (stream.lost) troubles.push(`${stream.lost} events are no longer available`);
    const stages = Object.entries(run?.latency_ms ?? {});
    const latency = stages.map(([stage, value]) => `${stage.replaceAll("_", " ")} ${value.p50.toFixed(1)} / ${value.p99.toFixed(1)}`);
    const rows = [
      ["source", camera],
      ["frames", `${counters.captured} captured, ${counters.used} used${dropped ? `, dropped: ${dropped}` : ""}`],
      ["ticks", `${counters.ticks}: ${counters.fresh} fresh, ${counters.held} held, ${counters.cut} cut`],
      ["latency in ms", latency.length ? `p50 / p99: ${latency.join(", ")}` : "unknown"],
      ["gaps", `${stream.gaps.length}`],
      ["journal", delivery.journal === null ? "none" : `${delivery.journal}${delivery.held ? `, ${delivery.held} events wait` : ""}`],
      ["engine", health.engine?.kind ?? "unknown"],
      ...(health.selfcheck ? [["self-check", `${health.selfcheck.checks} done, ${health.selfcheck.failed} failed`]] : []),
      ...troubles.map((text) => ["trouble", text]),
    ];
    const bad = troubles.length > 0 || source.state === "lost" || (delivery.journal !== null && delivery.journal !== "ok");
    this.find(".health").classList.toggle("bad", bad);
    put(this.find(".health .count"), state === "live" ? (bad ? "(trouble)" : "(good)") : "(old)");
    list.replaceChildren(...rows.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  }

  draw() {
    this.timeline.draw();
  }

  fail(error) {
    this.section.classList.add("stale");
    put(this.find(".state"), `cannot be shown: ${error.message}`);
  }
}

export const describe = (event) => `${brief(event)}. ${reason(event)}`;

// What was done wrong, in few words.
function brief(event) {
  const what = event.kind === "skipped" ? event.expected.join(", ") : event.seen;
  return `${event.kind.replaceAll("_", " ")}${what ? `: ${named(what)}` : ""}`;
}

function reason(event) {
  const expected = event.kind !== "skipped" && event.expected.length ? `; expected ${event.expected.map(named).join(" or ")}` : "";
  return `${named(event.evidence)}${expected}`;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

document.documentElement.style.setProperty("--deviation", DEVIATION);
