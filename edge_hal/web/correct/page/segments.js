// What can be done to the segments of a video. They are [step, first frame], in order from frame 0; neighbours differ.
// Each function returns new segments, and leaves those that it was given as they are.

// The index of the segment that shows `frame`.
export function at(segments, frame) {
  let found = 0;
  while (found + 1 < segments.length && segments[found + 1][1] <= frame) found += 1;
  return found;
}

// The boundary before segment `index` moves to `frame`, as far as its neighbours leave room.
export function moved(segments, index, frame, length) {
  const lowest = segments[index - 1][1] + 1, highest = (segments[index + 1]?.[1] ?? length) - 1;
  const first = Math.max(lowest, Math.min(highest, frame));
  return segments.map((segment, place) => (place === index ? [segment[0], first] : segment));
}

// Segment `index` shows `frame`, and its neighbours move as little as that takes; null if there is no room for them.
export function containing(segments, index, frame, length) {
  const found = segments.map(([step, first], place) => [step, place <= index ? Math.min(first, frame - index + place) : Math.max(first, frame - index + place)]);
  return found[0][1] < 0 || found.at(-1)[1] >= length ? null : found;
}

// From `frame` on, the segment there has another step.
export function split(segments, frame, step) {
  const index = at(segments, frame);
  if (segments[index][1] === frame) return reassigned(segments, index, step);
  return joined([...segments.slice(0, index + 1), [step, frame], ...segments.slice(index + 1)]);
}

export function reassigned(segments, index, step) {
  return joined(segments.map((segment, place) => (place === index ? [step, segment[1]] : segment)));
}

// The segment becomes part of the one before it; the first one, of the one after it.
export function removed(segments, index) {
  if (segments.length < 2) return segments;
  const left = segments.filter((_, place) => place !== index);
  return joined([[left[0][0], 0], ...left.slice(1)]);
}

export const same = (some, others) => JSON.stringify(some) === JSON.stringify(others);

// Neighbours with one step become one.
function joined(segments) {
  return segments.filter(([step], place) => place === 0 || segments[place - 1][0] !== step);
}
