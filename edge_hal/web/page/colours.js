// One colour for each step: those of Okabe and Ito, which colour-blind people tell apart. Vermillion marks deviations
// alone. The seventh step has the colour of the first, with stripes.

const PALETTE = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#CC79A7"];
const DARK = new Set(["#0072B2"]);
export const BACKGROUND = "#9a9a9a";
export const DEVIATION = "#D55E00";

export class Colours {
  constructor(names, background) {
    this.index = new Map(names.map((name, index) => [name, index]));
    this.background = background;
  }
  place(name) {
    if (!this.index.has(name)) this.index.set(name, this.index.size);
    return this.index.get(name);
  }
  of(name) {
    return this.background.has(name) ? BACKGROUND : PALETTE[this.place(name) % PALETTE.length];
  }
  text(name) {
    return DARK.has(this.of(name)) ? "#ffffff" : "#000000";
  }
  striped(name) {
    return !this.background.has(name) && this.place(name) % (2 * PALETTE.length) >= PALETTE.length;
  }
}
