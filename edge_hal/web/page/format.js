// Numbers and times as a reader expects them.

const clock = new Intl.DateTimeFormat([], {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"});
const day = new Intl.DateTimeFormat([], {month: "short", day: "numeric"});

export const timeOf = (ms) => clock.format(ms);
export const dayOf = (ms) => day.format(ms);
export const named = (step) => step.replaceAll("_", " ");
export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

export function seconds(s) {
  if (s < 9.95) return `${s.toFixed(1)}\u00a0s`;
  if (s < 119.5) return `${Math.round(s)}\u00a0s`;
  const minutes = Math.round(s / 60);
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`.replace(/(\d+) min 60 s/, (_, m) => `${+m + 1} min 0 s`);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
