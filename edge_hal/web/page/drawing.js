// What the canvases of all pages draw: a segment in the colour of its step, and a name that fits its room.

export function fill(pen, colours, action, left, top, wide, high) {
  pen.fillStyle = colours.of(action);
  pen.fillRect(left, top, wide, high);
  if (!colours.striped(action) || wide < 6) return;
  pen.save();
  pen.beginPath();
  pen.rect(left, top, wide, high);
  pen.clip();
  pen.strokeStyle = "rgb(0 0 0 / 45%)";
  pen.lineWidth = 2;
  pen.beginPath();
  for (let at = Math.floor((left - high) / 10) * 10; at < left + wide; at += 10) {
    pen.moveTo(at, top + high);
    pen.lineTo(at + high, top);
  }
  pen.stroke();
  pen.restore();
}

export function label(pen, text, left, middle, room, colour) {
  if (room < 14) return;
  let shown = text;
  for (let letters = text.length - 1; measure(pen, shown) > room; letters--) {
    if (letters < 2) return;
    shown = `${text.slice(0, letters)}…`;
  }
  pen.textAlign = "left";
  pen.fillStyle = colour;
  pen.fillText(shown, left, middle);
}

const widths = new Map();
function measure(pen, text) {
  let wide = widths.get(text);
  if (wide === undefined) {
    if (widths.size > 2000) widths.clear();
    wide = pen.measureText(text).width;
    widths.set(text, wide);
  }
  return wide;
}
