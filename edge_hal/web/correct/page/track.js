// The segments of a video on a canvas: boundaries that are dragged, how certain they are, labels of parts, the playhead.

import {DEVIATION} from "./colours.js";
import {fill, label} from "./drawing.js";
import {named} from "./format.js";
import {moved} from "./segments.js";

const LANES = {marks: [4, 14], segments: [22, 54], certain: [80, 16], parts: [100, 8], axis: [110, 20]};
const HEIGHT = 132;
const SHORTEST_S = 2;
const TICKS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const NEAR = {mouse: 7, pen: 12, touch: 18};

export class Track {
  // on.go(frame): move the playhead. on.select(index): a boundary. on.dragged(segments, whole): while one is dragged,
  // and at the end.
  constructor(canvas, on) {
    Object.assign(this, {canvas, on, video: null, frame: 0, selected: null, asked: null, drag: null, shown: null, colours: null, begin: 0, span: 1, dirty: false});
    new ResizeObserver(() => { this.dirty = true; }).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, (event) => this.release(event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), {passive: false});
  }

  open(video, colours) {
    Object.assign(this, {video, colours, drag: null, shown: null});
    this.all();
  }

  // --- where it looks -------------------------------------------------------------------------

  all() {
    this.begin = 0;
    this.span = this.video.body.length;
    this.dirty = true;
  }

  zoom(factor, frame = this.frame) {
    const {length, rate_hz} = this.video.body;
    const span = Math.max(Math.min(length, SHORTEST_S * rate_hz), Math.min(length, this.span * factor));
    const share = (frame - this.begin) / this.span;
    this.look(frame - share * span, span);
  }

  look(begin, span) {
    this.span = span;
    this.begin = Math.max(0, Math.min(this.video.body.length - span, begin));
    this.dirty = true;
  }

  // Bring the playhead into sight.
  follow(frame) {
    this.frame = frame;
    if (frame < this.begin || frame > this.begin + this.span) this.look(frame - this.span / 2, this.span);
    this.dirty = true;
  }

  x(frame) {
    return ((frame - this.begin) / this.span) * this.canvas.clientWidth;
  }

  frameAt(x) {
    return this.begin + (x / this.canvas.clientWidth) * this.span;
  }

  // --- pointers ---------------------------------------------------------------------------------

  // The boundary that a pointer is near to; null if there is none.
  near(event) {
    const [top, high] = LANES.segments;
    if (event.offsetY < top - 6 || event.offsetY > top + high + 26) return null;
    let found = null, best = NEAR[event.pointerType] ?? NEAR.mouse;
    this.video.segments.forEach(([, first], index) => {
      const away = Math.abs(this.x(first) - event.offsetX);
      if (index > 0 && away <= best) [found, best] = [index, away];
    });
    return found;
  }

  press(event) {
    if (!this.video || event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    const index = this.near(event);
    this.drag = {id: event.pointerId, index, begin: event.offsetX, moved: false};
    if (index === null) {
      this.on.go(this.frameAt(event.offsetX));
    } else {
      this.on.select(index);
      this.on.go(this.video.segments[index][1]);
    }
  }

  move(event) {
    if (!this.video) return;
    if (!this.drag || this.drag.id !== event.pointerId) {
      this.canvas.classList.toggle("grab", this.near(event) !== null);
      return;
    }
    const frame = Math.round(this.frameAt(event.offsetX));
    if (this.drag.index === null) return this.on.go(frame);
    if (!this.drag.moved && Math.abs(event.offsetX - this.drag.begin) < 3) return;
    this.drag.moved = true;
    this.shown = moved(this.video.segments, this.drag.index, frame, this.video.body.length);
    this.dirty = true;
    this.on.go(this.shown[this.drag.index][1]);
  }

  release(event) {
    if (this.drag?.id !== event.pointerId) return;
    const segments = this.shown;
    this.drag = this.shown = null;
    this.dirty = true;
    if (segments && event.type === "pointerup") this.on.dragged(segments);
  }

  wheel(event) {
    if (!this.video) return;
    const across = event.shiftKey ? event.deltaY : event.deltaX;
    if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(event.deltaY / 240), this.frameAt(event.offsetX));
    else if (across) this.look(this.begin + (across / this.canvas.clientWidth) * this.span, this.span);
    else return;  // the page scrolls
    event.preventDefault();
  }

  // --- drawing ------------------------------------------------------------------------------------

  draw() {
    const {canvas} = this, width = canvas.clientWidth, scale = devicePixelRatio;
    if (!this.dirty || !this.video || !width) return;
    this.dirty = false;
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(HEIGHT * scale);
    }
    const style = getComputedStyle(canvas), pen = canvas.getContext("2d");
    [this.ink, this.faint] = [style.color, style.textDecorationColor];
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, HEIGHT);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    this.axis(pen, width);
    this.segments(pen, width);
    this.parts(pen);
    this.playhead(pen);
  }

  axis(pen, width) {
    const {rate_hz} = this.video.body, [top, high] = LANES.axis;
    const step = TICKS_S.find((each) => ((each * rate_hz) / this.span) * width >= 60) ?? TICKS_S.at(-1);
    pen.textAlign = "center";
    for (let n = Math.ceil(this.begin / rate_hz / step); n * step * rate_hz <= this.begin + this.span; n++) {
      const place = this.x(n * step * rate_hz);
      pen.fillStyle = this.faint;
      pen.fillRect(Math.round(place), LANES.segments[0], 1, top - LANES.segments[0] + 2);
      pen.fillStyle = this.ink;
      if (place > 14 && place < width - 14) pen.fillText(`${+(n * step).toFixed(1)} s`, place, top + high / 2);
    }
  }

  segments(pen, width) {
    const segments = this.shown ?? this.video.segments, {length} = this.video.body;
    const [top, high] = LANES.segments, [low, deep] = LANES.certain;
    segments.forEach(([step, first], index) => {
      const left = this.x(first), right = this.x(segments[index + 1]?.[1] ?? length);
      if (right < 0 || left > width) return;
      fill(pen, this.colours, step, left, top, Math.max(1, right - left), high);
      if (index === this.asked) {
        pen.strokeStyle = this.ink;
        pen.lineWidth = 3;
        pen.strokeRect(left + 1.5, top + 1.5, Math.max(1, right - left - 3), high - 3);
      }
      label(pen, named(step), Math.max(left, 0) + 7, top + high / 2, Math.min(right, width) - Math.max(left, 0) - 12, this.colours.text(step));
    });
    segments.forEach(([, first], index) => {
      const place = this.x(first);
      if (index === 0 || place < -8 || place > width + 8) return;
      const sure = this.shown ? 1 : this.video.certainty(index);
      const picked = index === this.selected;
      pen.fillStyle = this.ink;
      pen.fillRect(place - (picked ? 2 : 1), top - 6, picked ? 4 : 2, high + 12);
      if (sure !== null) {  // how far it is to be doubted
        pen.fillStyle = DEVIATION;
        pen.fillRect(place - 4, low + deep * sure, 8, deep * (1 - sure));
        pen.strokeStyle = this.ink;
        pen.lineWidth = 1;
        pen.strokeRect(place - 4, low, 8, deep);
      }
      if (picked) {
        pen.fillStyle = this.ink;
        pen.beginPath();
        pen.moveTo(place - 7, top - 12);
        pen.lineTo(place + 7, top - 12);
        pen.lineTo(place, top - 3);
        pen.fill();
      }
    });
  }

  parts(pen) {
    const [top, high] = LANES.parts;
    for (const [first, stop, step] of this.video.body.parts) {
      fill(pen, this.colours, step, this.x(first), top, Math.max(4, this.x(stop) - this.x(first)), high);
    }
  }

  playhead(pen) {
    const place = this.x(this.frame);
    pen.strokeStyle = this.ink;
    pen.lineWidth = 1.5;
    pen.setLineDash([4, 3]);
    pen.beginPath();
    pen.moveTo(place, 0);
    pen.lineTo(place, LANES.axis[0]);
    pen.stroke();
    pen.setLineDash([]);
    pen.fillStyle = this.ink;
    pen.beginPath();
    pen.arc(place, 5, 5, 0, 2 * Math.PI);
    pen.fill();
  }
}
