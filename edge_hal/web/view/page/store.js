// What is known of one stream, from its events (docs/events.md). Times are milliseconds of the wall clock.

import {Colours} from "./colours.js";

const MOST_EVENTS = 20000;
const MOST_NOW = 2000;

const identity = (event) => `${event.run?.journal ?? event.run?.session}/${event.type === "lost" ? `lost${event.from}` : event.seq}`;

export class Stream {
  constructor(name) {
    this.name = name;
    this.nows = [];  // {session, t_ns, action, probability}
    this.connections = 0;
    this.live = false;
    this.heard = -Infinity;  // performance.now() of the newest message
    this.now = null;
    this.heartbeat = null;
    this.labels = [];
    this.steps = null;  // of the procedure
    this.colours = new Colours([], new Set());
    this.forget();
    this.derive();
  }

  // Another connection tells the events anew: what came in between, and the places of older ones, are unknown.
  forget() {
    this.connections += 1;
    this.events = [];
    this.known = new Set();
    this.older = "m0";  // where to ask for events before the first one
    this.loading = false;
    this.changed = true;
  }

  add(event) {
    const type = event.type;
    if (type === "now") {
      this.setNow(event, event.run?.session);
    } else if (type === "heartbeat" || type === "snapshot") {
      if (type === "heartbeat") this.heartbeat = event;
      if (event.labels) this.setLabels(event.labels);
      this.action = event.action;
      if (event.now) this.setNow({...event.now, run: event.run}, event.run?.session);
      else this.now = null;
    } else if (!this.known.has(identity(event))) {
      this.known.add(identity(event));
      this.events.push(event);
      if (type === "start") this.setLabels(event.labels);
      if (type === "start" || type === "end" || (type === "gap" && event.reset)) this.now = null;
      if (type === "transition") this.action = event.to;
      this.newest = event;
      while (this.events.length > MOST_EVENTS) this.known.delete(identity(this.events.shift()));
      this.changed = true;
    }
  }

  prepend(events, older) {
    const fresh = events.filter((event) => !this.known.has(identity(event)));
    for (const event of fresh) this.known.add(identity(event));
    this.events = [...fresh, ...this.events];
    this.older = this.events.length < MOST_EVENTS ? older : null;
    const start = fresh.findLast((event) => event.type === "start");
    if (start && !this.labels.length) this.setLabels(start.labels);
    this.changed = true;
  }

  addNow(session, t_ns, action, probability) {
    const last = this.nows.at(-1);
    if (last && last.session === session && (last.action === action || last.t_ns >= t_ns)) return;
    this.nows.push({session, t_ns, action, probability});
    if (this.nows.length > MOST_NOW) this.nows.splice(0, MOST_NOW / 2);
  }

  setNow(report, session) {
    this.now = {...report, session, received: performance.now()};
    this.addNow(session, report.at.t_ns, report.action, report.probability);
  }

  setLabels(labels) {
    if (labels.join("\n") === this.labels.join("\n")) return;
    this.labels = labels;
    this.setColours();
  }

  setSteps(steps) {
    this.steps = steps;
    this.setColours();
  }

  setColours() {
    const background = new Set((this.steps ?? []).filter((step) => step.background).map((step) => step.name));
    const names = this.steps ? this.steps.map((step) => step.name) : this.labels;
    this.colours = new Colours(names.filter((name) => !background.has(name)), background);
    this.changed = true;
  }

  // The timeline and the current pass, from all events.
  derive() {
    if (!this.changed) return;
    this.changed = false;
    this.segments = [];  // {action, begin, end (null: goes on), decision, confidence, warm}
    this.gaps = [];
    this.deviations = [];
    this.cycles = [];
    this.starts = [];
    this.ended = null;
    this.lost = 0;
    this.anchors = new Map();  // milliseconds of the wall clock at stream time 0
    const placed = new Set();  // sessions of which an event with a stream time was seen
    let until = -Infinity, open = null, session = null, closed = -1, pass = null;
    const close = (at) => {
      if (open) open.end = Math.max(open.begin, at);
      open = null;
    };
    // The actions of a pass that goes on over a pause; the next event `cycle` ends them.
    const resumed = (event) => (event.resumed?.done ?? []).map((action) => ({action, t_ns: -1}));
    for (const event of this.events) {
      const name = event.run?.session ?? "";
      const moment = event.decision ?? (event.type === "gap" || event.type === "cycle" ? event.end : event.last);
      if (!this.anchors.has(name) || (moment && !placed.has(name))) {
        // Stream time 0 is the first frame, and a camera may open long after `start`. A file that is read at full pace
        // lasts longer in stream time than in wall time: its stream begins with `start`, and the next run comes after it.
        const zero = (event.run?.utc_ns ?? 0) / 1e6 - (moment?.t_ns ?? 0) / 1e6;
        this.anchors.set(name, Math.max(this.anchors.get(name) ?? until, zero));
        if (moment) placed.add(name);
      }
      const anchor = this.anchors.get(name);
      const at = (when) => anchor + when.t_ns / 1e6;
      if (name !== session) {
        close(until);
        session = name;
        closed = -1;
        pass = {actions: [], missing: new Map(), deviations: [], epoch: event.epoch};
        this.ended = null;
      }
      if (event.type === "transition") {
        close(at(event.boundary));
        open = {action: event.to, begin: at(event.boundary), end: null, decision: at(event.decision),
          confidence: event.confidence, warm: event.warm, event, t_ns: event.boundary.t_ns};
        this.segments.push(open);
        pass.actions.push({action: event.to, t_ns: event.boundary.t_ns});
        pass.missing.delete(event.to);
      } else if (event.type === "deviation") {
        const deviation = {at: at(event.boundary), decision: at(event.decision), event, corrected: false};
        const old = event.corrects === null ? null : this.deviations.findLast((other) => other.event.seq === event.corrects);
        if (old) old.corrected = true;
        this.deviations.push(deviation);
        pass.deviations.push(deviation);
        if (event.kind === "skipped") for (const step of event.expected) pass.missing.set(step, event.seq);
      } else if (event.type === "cycle") {
        this.cycles.push({begin: at(event.begin), end: at(event.end), event});
        const seqs = new Set(event.deviations.map((each) => each.seq));
        closed = event.end.t_ns;
        pass = {
          actions: pass.actions.filter((each) => each.t_ns >= closed),
          missing: new Map([...pass.missing].filter(([, seq]) => !seqs.has(seq))),
          deviations: pass.deviations.filter((each) => !seqs.has(each.event.seq)),
        };
      } else if (event.type === "gap") {
        if (event.reset) {
          close(at(event.begin));
          pass = {actions: resumed(event), missing: new Map(), deviations: []};
        }
        this.gaps.push({begin: at(event.begin), end: at(event.end), event});
      } else if (event.type === "end") {
        close(at(event.last));
        this.ended = event;
      } else if (event.type === "start") {
        pass.actions.push(...resumed(event));
        this.starts.push({at: anchor, event});
      } else if (event.type === "lost") {
        this.lost += event.to - event.from + 1;
      }
      if (moment) until = Math.max(until, at(moment));
    }
    this.open = open;
    this.pass = pass ?? {actions: [], missing: new Map(), deviations: []};
    this.begin = this.segments[0]?.begin ?? this.starts[0]?.at ?? null;
    this.until = until;
    this.session = session;
  }

  // The newest moment that is known to be over.
  end() {
    const now = this.now && this.anchors.has(this.now.session) ? this.anchors.get(this.now.session) + this.now.at.t_ns / 1e6 : -Infinity;
    const beat = this.live && !this.ended && this.heartbeat?.run?.session === this.session ? this.heartbeat.run.utc_ns / 1e6 : -Infinity;
    return Math.max(now, this.until, beat);
  }

  nowSegments() {
    const found = [];
    for (const {session, t_ns, action, probability} of this.nows) {
      const anchor = this.anchors.get(session);
      if (anchor === undefined) continue;
      const begin = anchor + t_ns / 1e6, last = found.at(-1);
      if (last) last.end = last.session === session ? begin : last.begin;
      found.push({session, action, probability, begin, end: begin});
    }
    const last = found.at(-1);
    if (last && last.session === this.session) last.end = Math.max(last.end, this.end());
    return found;
  }
}
