// The token, and the two WebSockets. Both connect again by themselves.

const KEY = "edge-hal-token";
const LONGEST_MS = 4000;

export function readToken() {
  const given = location.hash.slice(1);
  if (given) {
    localStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname);  // out of sight, and out of what is copied
  }
  return localStorage.getItem(KEY) ?? "";
}

export class Connection {
  // on.message(object), on.state("connecting" | "connected" | "lost" | "denied")
  constructor(token, on) {
    this.token = token;
    this.on = on;
    this.wait_ms = 250;
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
    addEventListener("hashchange", () => this.useToken(readToken()));
    this.connect();
  }

  async connect() {
    this.timer = undefined;
    let answer;
    try {
      answer = await this.ask("/data/check");
    } catch {
      return this.later("lost");
    }
    if (answer.status === 401) {
      this.on.state("denied");
      return;
    }
    const socket = this.socket = open("/live", this.token);
    socket.onmessage = (message) => {
      this.wait_ms = 250;
      let body;
      try {
        body = JSON.parse(message.data);
      } catch {
        return;
      }
      if (body.type === "hello") this.on.state("connected");
      this.on.message(body);
    };
    socket.onclose = () => this.later("lost");
  }

  later(state) {
    this.on.state(state);
    this.timer = setTimeout(() => this.connect(), this.wait_ms);
    this.wait_ms = Math.min(LONGEST_MS, 2 * this.wait_ms + 250);
  }

  // Connect now instead of later.
  retry() {
    if (this.timer === undefined) return;
    clearTimeout(this.timer);
    this.connect();
  }

  // The address was opened again, perhaps with another token.
  useToken(token) {
    this.token = token;
    if (this.socket && this.socket.readyState !== WebSocket.CLOSED) {
      this.socket.close();  // then it connects again
    } else {
      clearTimeout(this.timer);
      this.connect();
    }
  }

  ask(path) {
    return fetch(path, {headers: {Authorization: `Bearer ${this.token}`}, cache: "no-store"});
  }

  async history(stream, before) {
    const query = new URLSearchParams({stream, before});
    const answer = await this.ask(`/data/history?${query}`);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    return body;
  }
}

// Shows the newest picture of a stream in `image`, while `wanted()`.
export class Pictures {
  constructor(stream, image, token, wanted) {
    this.stream = stream;
    this.image = image;
    this.token = token;
    this.wanted = wanted;
    this.waits = false;
  }

  update() {
    if (!this.wanted()) {
      this.socket?.close();
      this.image.hidden = true;
    } else if (!this.socket && !this.waits) {
      this.open();
    }
  }

  open() {
    const socket = this.socket = open(`/pictures?stream=${encodeURIComponent(this.stream)}`, this.token);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (message) => {
      const bytes = new Uint8Array(message.data);
      const begin = bytes.indexOf(10) + 1;
      const before = this.image.src;
      this.image.src = URL.createObjectURL(new Blob([bytes.subarray(begin)], {type: "image/jpeg"}));
      this.image.hidden = false;
      if (before) URL.revokeObjectURL(before);
    };
    socket.onclose = () => {
      this.socket = undefined;
      this.image.classList.add("old");
      this.waits = true;
      setTimeout(() => { this.waits = false; }, 2000);
    };
    socket.onopen = () => this.image.classList.remove("old");
  }
}

function open(path, token) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return new WebSocket(`${scheme}://${location.host}${path}`, ["edge-hal", token]);
}
