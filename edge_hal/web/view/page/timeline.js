// The timeline of one stream on a canvas: decided steps, their confidence, what `now` said, gaps, deviations, cycles.

import {DEVIATION} from "./colours.js";
import {fill, label} from "./drawing.js";
import {dayOf, named, percent, seconds, timeOf} from "./format.js";

const LIVE_SPAN = 120_000;
const SHORTEST = 2000, LONGEST = 14 * 86_400_000;
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400].map((s) => 1000 * s);
const LANES = {cycles: [4, 14], final: [24, 46], confidence: [72, 14], now: [92, 22], axis: [118, 22]};
const HEIGHT = 142;

export class Timeline {
  // older(): asks for events before the oldest. detail(text): describes what is selected. played(segment): it was clicked.
  constructor(stream, canvas, {older, detail, range, played}) {
    Object.assign(this, {stream, canvas, older, detail, range, played});
    this.span = LIVE_SPAN;
    this.right = null;  // milliseconds at the right edge; null: live
    this.selected = null;
    this.pointers = new Map();
    this.visible = true;
    this.dirty = true;
    new ResizeObserver(() => { this.dirty = true; }).observe(canvas);
    new IntersectionObserver(([entry]) => { this.visible = entry.isIntersecting; this.dirty = true; }).observe(canvas);
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), {passive: false});
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, (event) => this.release(event));
  }

  // --- where it looks -------------------------------------------------------------------------

  edge() {
    const {stream} = this;
    const live = stream.end();
    return Number.isFinite(live) ? live : Date.now();
  }

  window() {
    const end = this.right ?? this.edge() + 0.03 * this.span;
    return [end - this.span, end];
  }

  scroll(ms) {
    this.show(this.window()[1] + ms, this.span);
  }

  zoom(factor, at = 0.5) {
    const [begin, end] = this.window();
    const span = Math.min(LONGEST, Math.max(SHORTEST, this.span * factor));
    if (this.right === null && at === 0.5) {
      this.span = span;
      this.dirty = true;
      return;
    }
    const fixed = begin + at * (end - begin);
    this.show(fixed + (1 - at) * span, span);
  }

  show(right, span) {
    const live = this.edge() + 0.03 * span;
    const oldest = this.stream.begin ?? live;
    this.span = span;
    this.right = right >= live ? null : Math.max(right, oldest + 0.2 * span);
    if (this.right !== null && this.right >= live) this.right = null;
    this.dirty = true;
  }

  follow() {
    this.right = null;
    this.dirty = true;
  }

  all() {
    this.wantsAll = true;
    this.fit();
  }

  fit() {
    const oldest = this.stream.begin ?? this.edge() - LIVE_SPAN;
    this.right = null;
    this.span = Math.min(LONGEST, Math.max(SHORTEST, 1.06 * (this.edge() - oldest)));
    this.dirty = true;
  }

  // --- keys and pointers ----------------------------------------------------------------------

  key(event) {
    const {key} = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const done = {
      ArrowLeft: () => this.scroll(-this.span / 8), ArrowRight: () => this.scroll(this.span / 8),
      PageUp: () => this.scroll(-this.span), PageDown: () => this.scroll(this.span),
      ArrowUp: () => this.step(-1), ArrowDown: () => this.step(1),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
      Home: () => this.show((this.stream.begin ?? 0) + 0.9 * this.span, this.span), End: () => this.follow(),
      a: () => this.all(), A: () => this.all(), p: () => this.play(this.selected), P: () => this.play(this.selected),
    }[key];
    if (!done) return;
    this.wantsAll = key === "a" || key === "A";
    done();
    event.preventDefault();
  }

  wheel(event) {
    const across = event.shiftKey ? event.deltaY : event.deltaX;
    if (event.ctrlKey || event.metaKey) {
      const box = this.canvas.getBoundingClientRect();
      this.zoom(Math.exp(event.deltaY / 240), (event.clientX - box.left) / box.width);
    } else if (across) {
      this.scroll((across / this.canvas.clientWidth) * this.span);
    } else {
      return;  // the page scrolls
    }
    this.wantsAll = false;
    event.preventDefault();
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event.offsetX);
    this.moved = 0;
  }

  move(event) {
    const x = event.offsetX;
    if (!this.pointers.has(event.pointerId)) return;
    const before = this.pointers.get(event.pointerId);
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
    this.pointers.set(event.pointerId, x);
    this.moved += Math.abs(x - before);
    this.wantsAll = false;
    if (others.length) {
      const wide = Math.max(1, Math.abs(before - others[0])), now = Math.max(1, Math.abs(x - others[0]));
      this.zoom(wide / now, others[0] / this.canvas.clientWidth);
    } else {
      this.scroll(((before - x) / this.canvas.clientWidth) * this.span);
    }
  }

  release(event) {
    if (this.pointers.delete(event.pointerId) && this.moved < 4 && event.type === "pointerup") {
      const [begin, end] = this.window();
      const at = begin + (event.offsetX / this.canvas.clientWidth) * (end - begin);
      const deviation = this.stream.deviations.find((each) => Math.abs(each.at - at) < (8 / this.canvas.clientWidth) * this.span);
      if (deviation && event.offsetY < LANES.final[0] + 12) this.describeDeviation(deviation);
      else this.play(this.stream.segments[lastBefore(this.stream.segments, at)]);
    }
  }

  step(by) {
    const {segments} = this.stream;
    const place = segments.indexOf(this.selected);
    this.select(segments[Math.min(segments.length - 1, Math.max(0, (place < 0 ? segments.length : place) + by))]);
    if (!this.selected) return;
    const [begin, end] = this.window(), {begin: at} = this.selected;
    if (at < begin || at > end) this.show(at + this.span / 2, this.span);
  }

  play(segment) {
    this.select(segment);
    this.played(segment ?? null);
  }

  select(segment) {
    this.selected = segment ?? null;
    this.dirty = true;
    if (!segment) return this.detail("");
    const {action, begin, end, decision, confidence, warm} = segment;
    const took = end === null ? "goes on" : `took ${seconds((end - begin) / 1000)}`;
    this.detail(`${named(action)}: from ${timeOf(begin)}, ${took}, decided ${seconds((decision - begin) / 1000)} after it began, ` +
      `confidence ${percent(confidence)}${warm ? "" : ", warming up"}`);
  }

  describeDeviation({at, event}) {
    this.detail(`${timeOf(at)} ${event.kind.replaceAll("_", " ")}: ${event.evidence}`);
  }

  // --- drawing --------------------------------------------------------------------------------

  draw() {
    const {stream, canvas} = this;
    if (!this.visible || !this.dirty) return;
    this.dirty = false;
    if (this.wantsAll) this.fit();
    const width = canvas.clientWidth, scale = devicePixelRatio;
    if (!width) return;
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(HEIGHT * scale);
    }
    const style = getComputedStyle(canvas);
    this.ink = style.color;
    this.faint = style.textDecorationColor;
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, HEIGHT);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const [begin, end] = this.window();
    const x = (at) => ((at - begin) / (end - begin)) * width;
    this.axis(pen, begin, end, width, x);
    this.segments(pen, begin, end, x);
    this.now(pen, begin, end, x);
    this.gaps(pen, begin, end, x);
    this.cycles(pen, begin, end, x);
    this.deviations(pen, begin, end, x);
    this.range(`${timeOf(begin)} to ${this.right === null ? "now" : timeOf(end)} · ${seconds(this.span / 1000)}`);
    if (stream.older !== null && !stream.loading && (stream.begin === null || begin < stream.begin + 0.5 * this.span)) this.older();
  }

  axis(pen, begin, end, width, x) {
    const step = TICKS.find((each) => (each / (end - begin)) * width >= 76) ?? TICKS.at(-1);
    const offset = 60_000 * new Date(begin).getTimezoneOffset();
    const [top, high] = LANES.axis;
    pen.textAlign = "center";
    for (let at = Math.ceil((begin - offset) / step) * step + offset; at < end; at += step) {
      pen.fillStyle = this.faint;
      pen.fillRect(Math.round(x(at)), LANES.final[0], 1, top - LANES.final[0] + 3);
      pen.fillStyle = this.ink;
      const midnight = (at - offset) % 86_400_000 === 0;
      const text = midnight ? dayOf(at) : step < 60_000 ? timeOf(at) : timeOf(at).slice(0, 5);
      if (x(at) > 28 && x(at) < width - 28) pen.fillText(text, x(at), top + high / 2 + 2);
    }
  }

  segments(pen, begin, end, x) {
    const {segments, colours} = this.stream, live = this.edge();
    const [top, high] = LANES.final, [low, deep] = LANES.confidence;
    let narrow = -1;  // the pixel that the last segment without a width of its own has filled
    for (let place = Math.max(0, lastBefore(segments, begin)); place < segments.length; place++) {
      const segment = segments[place];
      if (segment.begin > end) break;
      const left = Math.max(-2, x(segment.begin)), right = x(segment.end ?? live);
      const wide = right - left;
      if (right < 0) continue;
      if (wide < 1 && Math.floor(left) === narrow) continue;
      narrow = Math.floor(left);
      fill(pen, colours, segment.action, left, top, Math.max(1, wide), high);
      pen.fillStyle = this.ink;
      pen.globalAlpha = 0.55;
      pen.fillRect(left, low + deep * (1 - segment.confidence), Math.max(1, wide - 1), deep * segment.confidence);
      pen.globalAlpha = 1;
      if (wide > 3) pen.fillRect(left, top - 3, 1.5, high + 6);  // the boundary
      if (wide > 12) {
        pen.fillRect(Math.min(x(segment.decision), right) - 0.5, top + high, 1, 4);  // when it was decided
        label(pen, named(segment.action), Math.max(left, 0) + 5, top + high / 2, Math.min(right, x(end)) - Math.max(left, 0) - 8, colours.text(segment.action));
      }
      if (segment === this.selected) {
        pen.strokeStyle = this.ink;
        pen.lineWidth = 3;
        pen.strokeRect(left + 1.5, top + 1.5, Math.max(2, wide - 3), high - 3);
      }
    }
  }

  now(pen, begin, end, x) {
    const {colours} = this.stream, [top, high] = LANES.now;
    for (const segment of this.stream.nowSegments()) {
      if (segment.end < begin || segment.begin > end) continue;
      const left = Math.max(0, x(segment.begin)), wide = x(segment.end) - left;
      fill(pen, colours, segment.action, left, top, Math.max(1, wide), high);
      label(pen, named(segment.action), left + 5, top + high / 2, Math.min(wide, x(end) - left) - 8, colours.text(segment.action));
    }
  }

  gaps(pen, begin, end, x) {
    const top = LANES.final[0], high = LANES.now[0] + LANES.now[1] - top;
    for (const gap of this.stream.gaps) {
      if (gap.end < begin || gap.begin > end) continue;
      const left = x(gap.begin), wide = Math.max(2, x(gap.end) - left);
      pen.globalAlpha = 0.5;
      pen.fillStyle = this.faint;
      pen.fillRect(left, top, wide, high);
      pen.globalAlpha = 1;
      label(pen, `gap: ${gap.event.reason}`, left + 4, top + high / 2, wide - 6, this.ink);
    }
    pen.strokeStyle = this.ink;
    pen.setLineDash([3, 3]);
    for (const {at} of this.stream.starts) {
      if (at < begin || at > end) continue;
      pen.beginPath();
      pen.moveTo(x(at), top - 4);
      pen.lineTo(x(at), top + high);
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  cycles(pen, begin, end, x) {
    const [top, high] = LANES.cycles, {cycles} = this.stream;
    pen.lineWidth = 1.5;
    for (const {begin: from, end: to, event} of cycles) {
      if (to < begin || from > end) continue;
      const left = x(from) + 1, right = x(to) - 1;
      pen.strokeStyle = event.complete && !event.deviations.length ? this.ink : DEVIATION;
      pen.beginPath();
      pen.moveTo(left, top + high);
      pen.lineTo(left, top + high - 5);
      pen.lineTo(right, top + high - 5);
      pen.lineTo(right, top + high);
      pen.stroke();
      label(pen, seconds((to - from) / 1000), Math.max(left, 0) + 4, top + 3, Math.min(right, x(end)) - Math.max(left, 0) - 6, this.ink);
    }
  }

  deviations(pen, begin, end, x) {
    const top = LANES.final[0];
    for (const {at, corrected} of this.stream.deviations) {
      if (at < begin - this.span || at > end) continue;
      const place = x(at);
      pen.globalAlpha = corrected ? 0.4 : 1;
      pen.fillStyle = DEVIATION;
      pen.fillRect(place - 1, top - 8, 2, LANES.now[0] + LANES.now[1] - top + 8);
      pen.beginPath();
      pen.moveTo(place - 8, top - 10);
      pen.lineTo(place + 8, top - 10);
      pen.lineTo(place, top + 6);
      pen.fill();
      pen.fillStyle = "#ffffff";
      pen.fillRect(place - 1, top - 8, 2, 6);
      pen.fillRect(place - 1, top, 2, 2);
      pen.globalAlpha = 1;
    }
  }
}

// The index of the last segment that begins at `at` or before; -1 if there is none.
function lastBefore(segments, at) {
  let low = 0, high = segments.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (segments[middle].begin <= at) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
