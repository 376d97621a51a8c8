import {open} from "./connection.js";

// Shows the newest picture of a stream in `image`, while `wanted()`.
export class Pictures {
  constructor(stream, image, connection, wanted) {
    this.stream = stream;
    this.image = image;
    this.connection = connection;
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
    const socket = this.socket = open(`/pictures?stream=${encodeURIComponent(this.stream)}`, this.connection.token);
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
