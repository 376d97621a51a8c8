// The list of all videos, the doubtful boundaries of all of them, and the training.

import {named, percent, seconds} from "./format.js";

const STATES = {accepted: ["✓", "accepted"], draft: ["✎", "corrected, not accepted"], found: ["", "found by training"], guess: ["?", "not trained on yet"], suggested: ["?", "suggested, not trained on yet"]};
const SEEN = "edge-hal-seen";

export class Overview {
  // on.open(name, frame or null)
  constructor(on) {
    this.on = on;
    this.rows = new Map();
    this.current = null;
    this.seen = new Set(JSON.parse(sessionStorage.getItem(SEEN) ?? "[]"));
    this.items = new Map();
  }

  setRows(rows) {
    this.rows = new Map(rows.map((row) => [row.name, row]));
    this.draw();
  }

  setRow(row) {
    this.rows.set(row.name, row);
    this.draw();
  }

  // Names, those with the least certain boundary first; what is accepted comes last.
  order() {
    const worst = (row) => (row.state === "accepted" ? 2 : row.doubts[0]?.[1] ?? (["guess", "suggested"].includes(row.state) ? -1 : 1));
    return [...this.rows.values()].sort((a, b) => worst(a) - worst(b) || (a.name < b.name ? -1 : 1)).map((row) => row.name);
  }

  beside(by) {
    const order = this.order(), place = order.indexOf(this.current);
    return order[Math.max(0, Math.min(order.length - 1, place + by))];
  }

  // {name, frame} of the least certain boundary that was not looked at yet; null if there is none.
  next() {
    let found = null;
    for (const row of this.rows.values()) {
      if (row.state === "accepted") continue;
      for (const [frame, sure] of row.doubts) {
        if (this.seen.has(`${row.name} ${frame}`) || (found && found.sure <= sure)) continue;
        found = {name: row.name, frame, sure};
      }
    }
    return found;
  }

  // A video that has steps without a label, the least certain first; null if there is none. `skipped`: how many of the
  // steps of a video were left out.
  nextToMark(skipped) {
    const open = (row) => !["accepted", "suggested"].includes(row.state) && row.labelled + skipped(row.name) < row.segments;
    return this.order().find((name) => name !== this.current && open(this.rows.get(name))) ?? null;
  }

  see(name, frame) {
    this.seen.add(`${name} ${frame}`);
    sessionStorage.setItem(SEEN, JSON.stringify([...this.seen].slice(-5000)));
  }

  select(name) {
    this.current = name;
    this.draw();
  }

  draw() {
    const list = document.getElementById("videos"), order = this.order();
    for (const name of order) {
      const row = this.rows.get(name);
      let item = this.items.get(name);
      if (!item) {
        item = document.createElement("li");
        item.append(document.createElement("button"));
        item.firstChild.addEventListener("click", () => this.on.open(name, null));
        this.items.set(name, item);
      }
      const text = JSON.stringify([row.state, row.expected, row.doubts[0], row.note, row.labelled, row.segments, name === this.current]);
      if (item.dataset.text !== text) {
        item.dataset.text = text;
        item.firstChild.replaceChildren(...this.parts(row));
        item.firstChild.toggleAttribute("aria-current", name === this.current);
      }
    }
    const items = order.map((name) => this.items.get(name));
    if (items.some((item, place) => list.children[place] !== item) || list.children.length !== items.length) list.replaceChildren(...items);
    this.summary();
  }

  parts(row) {
    const [mark, words] = STATES[row.state];
    const worst = row.doubts[0];
    const stamped = row.labelled ? `${row.labelled} of ${row.segments} steps marked; ` : "";
    const line = stamped + (row.state === "accepted" || !worst ? words : `${words === STATES.found[1] ? "" : `${words}; `}least certain: ${named(worst[2])} → ${named(worst[3])}, ${percent(worst[1])}`);
    const doubt = row.state === "accepted" ? "" : row.expected === null ? "…" : row.expected.toFixed(1);
    const made = [["span", mark, "mark"], ["strong", row.name, ""], ["span", doubt, "doubt"], ["span", line + (row.note ? " ▲" : ""), "line"]].map(([name, text, kind]) => {
      const part = document.createElement(name);
      part.textContent = text;
      part.className = kind;
      return part;
    });
    made[2].title = "boundaries that are expected to be off by more than half a second";
    return made;
  }

  // What a training could gain: the boundaries that are expected to be wrong.
  summary() {
    const rows = [...this.rows.values()], open = rows.filter((row) => row.state !== "accepted");
    const known = open.filter((row) => row.expected !== null);
    const wrong = known.reduce((sum, row) => sum + row.expected, 0);
    const accepted = rows.length - open.length;
    const drafts = rows.filter((row) => row.state === "draft").length;
    const text = `${accepted} of ${rows.length} videos accepted${drafts ? `, ${drafts} corrected and not accepted` : ""}.`;
    const gain = known.length ? ` In the others about ${wrong.toFixed(0)} boundaries are expected to be off by more than half a second.` : "";
    document.getElementById("summary").textContent = text + gain;
    document.getElementById("next").disabled = !this.next();
  }

  work(body) {
    const {training, scoring} = body;
    const running = ["running", "stopping"].includes(training?.state);
    const find = (id) => document.getElementById(id);
    find("train").disabled = running;
    find("stop").hidden = !running;
    find("progress").hidden = !running;
    if (running && training.total) {
      find("progress").max = training.total;
      find("progress").value = training.done;
    } else {
      find("progress").removeAttribute("value");
    }
    const took = training ? seconds(Date.now() / 1000 - training.began_s) : "";
    const words = {running: `${training?.stage || "starting"} ${training?.done || ""}${training?.total ? `/${training.total}` : ""} ${training?.remark ?? ""} (${took})`, stopping: "stopping …",
      done: `trained: run ${body.run}`, stopped: "stopped. The next training goes on there, if nothing was changed.", failed: "the training failed:"};
    find("stage").textContent = training ? words[training.state] : "";
    find("work").dataset.state = training?.state ?? "";
    const printed = find("printed");
    printed.hidden = !training?.lines.length;
    if (training?.state === "failed") printed.open = true;
    printed.querySelector("pre").textContent = training?.lines.join("\n") ?? "";
    find("scoring").textContent = !scoring || scoring.state === "done" ? "" : scoring.state === "failed" ? `How certain the boundaries are is not known: ${scoring.lines.at(-1) ?? ""}`
      : `finding how certain the boundaries are: ${scoring.total ? `${scoring.done}/${scoring.total} videos` : "starting"}`;
  }
}
