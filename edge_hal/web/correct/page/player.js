// Shows the frames of a video, one after the other or the one at the playhead. The server decodes them.

const KEPT = 240;

export class Player {
  // on.moved(frame): the playhead is there now. ask(path): an answer of the server.
  constructor(image, ask, on) {
    Object.assign(this, {image, ask, on, pictures: new Map(), video: null, frame: 0, loading: false, wanted: null, playing: null});
  }

  open(video, frame) {
    this.stop();
    if (this.video?.name !== video.name) this.forget();
    this.video = {name: video.name, ...video.body};
    this.frame = -1;
    this.image.hidden = !this.video.pictures;
    this.go(frame);
  }

  go(frame) {
    const at = Math.max(0, Math.min(this.video.length - 1, Math.round(frame)));
    if (at === this.frame) return;
    this.frame = at;
    this.on.moved(at);
    this.load(at);
  }

  toggle() {
    if (this.playing) return this.stop();
    const begin = this.frame >= this.video.length - 1 ? 0 : this.frame, since = performance.now();
    const turn = (now) => {
      if (!this.playing) return;
      const frame = begin + Math.floor(((now - since) / 1000) * this.video.rate_hz);
      this.go(frame);
      if (frame >= this.video.length - 1) return this.stop();
      this.playing = requestAnimationFrame(turn);
    };
    this.playing = requestAnimationFrame(turn);
    this.on.moved(this.frame);
  }

  stop() {
    if (this.playing) cancelAnimationFrame(this.playing);
    this.playing = null;
    if (this.video) this.on.moved(this.frame);
  }

  // One picture is asked for at a time; of those wanted meanwhile, the newest.
  async load(frame) {
    if (!this.video.pictures) return;
    this.wanted = frame;
    if (this.show(frame) || this.loading) return;
    this.loading = true;
    while (this.wanted !== null) {
      const {name} = this.video, at = this.wanted;
      this.wanted = null;
      if (this.show(at)) continue;
      try {
        const answer = await this.ask(`/data/frame?name=${encodeURIComponent(name)}&at=${at}`);
        if (!answer.ok) throw new Error((await answer.json()).error);
        const picture = URL.createObjectURL(await answer.blob());
        if (name !== this.video.name) URL.revokeObjectURL(picture);
        else this.keep(at, picture);
      } catch (error) {
        this.on.failed(error.message);
        break;
      }
      if (this.wanted === null || this.playing) this.show(at);
    }
    this.loading = false;
  }

  show(frame) {
    const picture = this.pictures.get(frame);
    if (!picture) return false;
    this.image.src = picture;
    this.image.decode().catch(() => null).then(() => { this.image.parentElement.style.minHeight = ""; });
    this.image.dataset.frame = frame;
    this.image.alt = `frame ${frame} of ${this.video.name}`;
    this.on.failed("");
    return true;
  }

  keep(frame, picture) {
    this.pictures.set(frame, picture);
    if (this.pictures.size <= KEPT) return;
    const [oldest, old] = this.pictures.entries().next().value;
    URL.revokeObjectURL(old);
    this.pictures.delete(oldest);
  }

  forget() {
    for (const picture of this.pictures.values()) URL.revokeObjectURL(picture);
    this.pictures.clear();
    const box = this.image.parentElement;
    box.style.minHeight = `${box.offsetHeight}px`;  // the page stays where it is until the next picture is there
    this.image.alt = "";
    this.image.removeAttribute("src");
    delete this.image.dataset.frame;
  }
}
