// Plays the recorded pictures of a segment, again and again, until it is closed.

import {seconds} from "./format.js";

const LONGEST_MS = 1000;  // that a picture is shown, where others are missing

export class Playback {
  // box: the element with an image and a text. ask(path): an answer of the server.
  constructor(box, ask) {
    Object.assign(this, {box, ask, turn: 0});
    this.image = box.querySelector("img");
    this.text = box.querySelector("figcaption");
    box.querySelector("button").addEventListener("click", () => this.close());
  }

  close() {
    this.turn += 1;
    this.box.hidden = true;
  }

  // begin, end: stream time, milliseconds. False: nothing was recorded then.
  async play(session, begin, end, name) {
    const turn = this.turn += 1;
    const range = {session, begin: Math.round(begin * 1e6), end: Math.round(end * 1e6)};
    const answer = await this.ask(`/data/recorded?${new URLSearchParams(range)}`).catch(() => null);
    const {times, of_source} = answer?.ok ? await answer.json() : {times: []};
    if (turn !== this.turn) return true;
    if (!times.length) {
      this.close();
      return false;
    }
    this.box.hidden = false;
    this.image.alt = `recorded pictures of ${name}`;
    for (let place = 0; turn === this.turn; place = (place + 1) % times.length) {
      const began = performance.now();
      const picture = await this.ask(`/data/recorded/picture?${new URLSearchParams({session, at: times[place]})}`).catch(() => null);
      if (turn !== this.turn) break;
      if (picture?.ok) await this.show(await picture.blob());
      this.box.dataset.shown = String(place);
      this.text.textContent = `${name}, ${seconds((times[place] - times[0]) / 1e9)}${of_source ? "" : " (the small pictures that the model saw)"}`;
      const wait = Math.min(LONGEST_MS, place + 1 < times.length ? (times[place + 1] - times[place]) / 1e6 : LONGEST_MS);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, wait - (performance.now() - began))));
    }
    return true;
  }

  async show(blob) {
    const before = this.image.src;
    this.image.src = URL.createObjectURL(blob);
    if (before) URL.revokeObjectURL(before);
    await this.image.decode().catch(() => null);
  }
}
