// One picture of each step: which step is asked for next, and which picture is proposed for it.

import {named} from "./format.js";
import {containing} from "./segments.js";

const EDGE = 0.1;

export class Marking {
  // on.open(name): another video is shown; a promise. on.go(frame): move the playhead. on.changed(): draw anew.
  // on.told(text): for the person. overview: of all videos.
  constructor(overview, on) {
    Object.assign(this, {overview, on, video: null, asked: null, busy: false, skipped: new Set()});
  }

  // Another video is shown, or another one has to be drawn. A step that is marked is not asked for.
  show(video) {
    if (video !== this.video || this.asked >= video.segments.length || labelled(video, this.asked ?? 0)) this.asked = null;
    this.video = video;
  }

  get question() {
    if (this.asked === null) return "";
    const {segments} = this.video;
    return `Does this picture show ${named(segments[this.asked][0])} (segment ${this.asked + 1} of ${segments.length})? If not, go to one that does, well inside the step. Then M.`;
  }

  // The picture at the playhead shows the step that is asked for. If no step is asked for, the first one is.
  async mark(frame) {
    const {video, asked} = this;
    if (this.busy) return;
    this.busy = true;
    if (asked === null) {
      await this.next(0);
    } else if (await video.stamp(frame, video.segments[asked][0]) && video === this.video) {
      const found = containing(video.segments, asked, frame, video.body.length);
      if (found) video.change(found);
      await this.next(asked + 1);
    }
    this.busy = false;
  }

  skip() {
    if (this.asked === null || this.busy) return;
    this.skipped.add(`${this.video.name} ${this.asked}`);
    return this.next(this.asked + 1);
  }

  end() {
    this.asked = null;
    this.on.changed();
  }

  // Ask for the next step without a label: of this video from `from` on and then from its begin, then of the others.
  async next(from) {
    let index = this.unmarked(this.video, from);
    if (index === null) {
      const name = this.overview.nextToMark((each) => [...this.skipped].filter((key) => key.startsWith(`${each} `)).length);
      if (name !== null) await this.on.open(name);
      if (this.video.name === name) index = this.unmarked(this.video, 0);
    }
    this.asked = index;
    if (index === null) this.on.told("Each step of all videos is marked, skipped or accepted.");
    else this.on.go(proposed(this.video, index));
    this.on.changed();
  }

  unmarked(video, from) {
    if (["accepted", "suggested"].includes(video.body.state)) return null;
    const {length} = video.segments;
    const order = video.segments.map((_, place) => (from + place) % length);
    return order.find((index) => !labelled(video, index) && !this.skipped.has(`${video.name} ${index}`)) ?? null;
  }
}

// Has a frame of segment `index` a label?
export function labelled(video, index) {
  const [step, first] = video.segments[index], stop = video.segments[index + 1]?.[1] ?? video.body.length;
  return video.body.parts.some(([begin, end, name]) => name === step && begin < stop && end > first);
}

// A picture near the begin or the end of a segment: labels in the middles alone say little of the boundaries
// (docs/correct.md). Which of the two differs from video to video.
function proposed(video, index) {
  const first = video.segments[index][1], stop = video.segments[index + 1]?.[1] ?? video.body.length;
  const turn = [...video.name].reduce((sum, letter) => sum + letter.codePointAt(0), index);
  return Math.min(stop - 1, first + Math.floor((stop - first) * (turn % 2 ? EDGE : 1 - EDGE)));
}
