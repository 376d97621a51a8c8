// One video that is corrected: its segments and time stamps, what can be undone, and the saving of each change as it is
// made. What was done is a list of {segments: before the change} and {stamp: [frame, step]}.

import {same} from "./segments.js";

const MOST_UNDO = 500;

export class Video {
  // on.changed(): draw anew. on.told(text): for the person. ask(path, options): an answer of the server.
  constructor(body, ask, on) {
    Object.assign(this, {ask, on, undone: [], done: [], saving: false, failed: false, heard: null, sends: 0});
    this.take(body);
  }

  take(body) {
    this.name = body.name;
    this.body = body;
    this.revision = body.revision;
    this.kept = body.segments.map(([step, first]) => [step, first]);  // as the server has them
    this.segments = this.kept;
    this.sure = new Map(body.segments.map(([step, first, sure], place) => [key(body.segments[place - 1]?.[0], step, first), sure]));
  }

  get unsaved() {
    return !same(this.segments, this.kept);
  }

  // Of the boundary before segment `index`: 0 to 1, null: not known yet. One that a person set is certain.
  certainty(index) {
    const [step, first] = this.segments[index];
    const found = this.sure.get(key(this.segments[index - 1]?.[0], step, first));
    return found === undefined ? 1 : found;
  }

  change(segments) {
    if (same(segments, this.segments)) return;
    this.remember({segments: this.segments});
    this.apply(segments);
  }

  // A frame shows a step. It is saved at once, and counts without being accepted. True if the server took it.
  async stamp(frame, step) {
    const taken = await this.request("stamp", {frame, step});
    if (taken) this.remember({stamp: [frame, step]});
    this.on.changed();
    return taken;
  }

  remember(what) {
    this.done.push(what);
    if (this.done.length > MOST_UNDO) this.done.shift();
    this.undone = [];
  }

  undo() {
    return this.back(this.done, this.undone, "remove_stamp");
  }

  redo() {
    return this.back(this.undone, this.done, "stamp");
  }

  async back(from, to, how) {
    const what = from.pop();
    if (what?.segments) {
      to.push({segments: this.segments});
      this.apply(what.segments);
    } else if (what) {
      const [frame, step] = what.stamp;
      (await this.request(how, {frame, step}) ? to : from).push(what);
      this.on.changed();
    }
  }

  apply(segments) {
    this.segments = segments;
    this.on.changed();
    this.save();
  }

  // Changes that are made while one is being saved are saved after it, as one.
  async save() {
    if (this.saving) return;
    this.saving = true;
    while (this.unsaved) {
      if (!await this.send({do: "save", segments: this.segments})) break;
    }
    this.saving = false;
    this.on.changed();
    if (this.heard !== null && this.heard !== this.revision) await this.reload();
  }

  // "accept", "withdraw", "discard", "stamp" or "remove_stamp". True if the server did it.
  async request(what, more = {}) {
    await this.idle();
    if (this.unsaved) return false;
    this.saving = true;
    const done = await this.send({do: what, ...more});
    this.saving = false;
    if (done && what === "discard") [this.done, this.undone] = [[], []];
    this.on.changed();
    return done;
  }

  async idle() {
    while (this.saving) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  async send(change) {
    this.heard = null;
    this.sends += 1;
    const sent = this.segments;
    let answer, body;
    try {
      answer = await this.ask("/data/video", {method: "POST", body: JSON.stringify({name: this.name, revision: this.revision, ...change})});
      body = await answer.json();
    } catch {
      this.failed = "not saved: no connection";
      return false;
    }
    if (answer.status === 409) {
      this.conflict(body.video);
      return false;
    }
    if (!answer.ok) {
      this.failed = `not saved: ${body.error}`;
      return false;
    }
    this.failed = false;
    const now = this.segments;
    this.take(body);
    if (!same(now, sent)) this.segments = now;  // it was changed while it was being saved
    return true;
  }

  // Somebody else was faster: what they made is shown.
  conflict(body) {
    this.take(body);
    this.done = [];
    this.undone = [];
    this.failed = false;
    this.on.told(`${this.name} was changed on another page. What is there now is shown; your last change was not saved.`);
    this.on.changed();
  }

  // The server says that the video has this revision now.
  hear(revision) {
    this.heard = revision;
    if (!this.saving && !this.unsaved && revision !== this.revision) this.reload();
  }

  async reload() {
    const sends = this.sends;
    try {
      const answer = await this.ask(`/data/video?name=${encodeURIComponent(this.name)}`);
      const body = await answer.json();
      // What was sent meanwhile is newer than this answer, and brought one of its own.
      if (!answer.ok || this.saving || this.unsaved || this.sends !== sends) return;
      const changed = body.revision !== this.revision;
      this.take(body);
      if (changed) {
        this.done = [];
        this.undone = [];
        this.on.told(`${this.name} was changed on another page. What is there now is shown.`);
      }
    } catch {
      return;  // the connection will be back
    }
    this.on.changed();
  }
}

const key = (before, step, first) => `${first} ${before ?? ""} ${step}`;
