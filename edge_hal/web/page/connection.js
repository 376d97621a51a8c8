// The token, and the WebSocket that tells what happens. It connects again by itself.

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

  ask(path, options = {}) {
    return fetch(path, {...options, headers: {Authorization: `Bearer ${this.token}`}, cache: "no-store"});
  }
}

export function open(path, token) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return new WebSocket(`${scheme}://${location.host}${path}`, ["edge-hal", token]);
}
