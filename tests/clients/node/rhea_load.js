// rhea, an AMQP 1.0 client that knows nothing of Azure, as a stream of numbered messages that has to survive its gateway: see
// amqp.rs of the tests. All devices share one connection, each with a token, a session and a link of its own.
//
// The first line on stdin says how it connects; the second one stops it. No message is sent twice: what was under way when a
// connection ended stays unanswered, and the numbers go on.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const readline = require("readline");
const rhea = require("rhea");

// Deliveries of a device that are not answered yet, and the time between two.
const WINDOW = 20;
const PACE_MS = 5;
// How long it waits before it connects anew.
const RETRY_MS = 200;
// Messages of one batch, and what says that a delivery is one.
const BATCH = 5;
const BATCH_FORMAT = 0x80013700;
// A line of progress for so many accepted messages of each device.
const STRIDE = 50;

function tell(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

function token(id, key) {
  const resource = encodeURIComponent(`localhost/devices/${id}`);
  const end = Math.floor(Date.now() / 1000) + 3600;
  const signature = crypto.createHmac("sha256", Buffer.from(key, "base64")).update(`${resource}\n${end}`);
  return `SharedAccessSignature sr=${resource}&sig=${encodeURIComponent(signature.digest("base64"))}&se=${end}`;
}

// What a device sends and sees, over all its connections.
class Device {
  constructor({ id, key, style }) {
    Object.assign(this, { id, key, style, next: 1, accepted: [], released: 0, rejected: 0 });
  }

  // Opens its link on a connection that has its token.
  attach(connection) {
    const session = connection.create_session();
    session.begin();
    this.inProgress = new Map();
    this.sender = session.open_sender({
      target: `/devices/${this.id}/messages/events`,
      rcv_settle_mode: this.style === "settled second" ? 1 : 0,
    });
    this.sender.on("accepted", ({ delivery }) => this.accepted.push(...this.answered(delivery)));
    this.sender.on("released", ({ delivery }) => (this.released += this.answered(delivery).length));
    this.sender.on("rejected", ({ delivery }) => (this.rejected += this.answered(delivery).length));
  }

  answered(delivery) {
    const numbers = this.inProgress.get(delivery.id);
    this.inProgress.delete(delivery.id);
    return numbers;
  }

  detach() {
    this.sender = undefined;
    this.inProgress = undefined;
  }

  isIdle() {
    return !this.inProgress || this.inProgress.size === 0;
  }

  message() {
    const n = this.next++;
    const body = rhea.message.data_section(Buffer.from(JSON.stringify({ n })));
    return [n, { content_type: "application/json", content_encoding: "utf-8", body }];
  }

  send() {
    if (!this.sender || !this.sender.sendable() || this.inProgress.size >= WINDOW) return;
    if (this.style === "batches") {
      const messages = Array.from({ length: BATCH }, () => this.message());
      const sections = messages.map(([, message]) => rhea.message.encode(message));
      const batch = rhea.message.encode({ body: rhea.message.data_sections(sections) });
      const { id } = this.sender.send(batch, undefined, BATCH_FORMAT);
      this.inProgress.set(id, messages.map(([n]) => n));
    } else {
      const [n, message] = this.message();
      this.inProgress.set(this.sender.send(message).id, [n]);
    }
  }
}

class Load {
  constructor(how) {
    this.how = how;
    this.devices = how.devices.map((device) => new Device(device));
    this.ca = fs.readFileSync(how.ca);
    this.isStopping = false;
    this.least = 0;
  }

  start() {
    this.connect();
    this.pace = setInterval(() => {
      this.progress();
      if (!this.isStopping) this.devices.forEach((device) => device.send());
      else if (this.devices.every((device) => device.isIdle())) this.end();
    }, PACE_MS);
  }

  connect() {
    const { port } = this.how;
    const container = rhea.create_container();
    let isOver = false;
    container.on("disconnected", () => {
      if (isOver) return;
      isOver = true;
      this.devices.forEach((device) => device.detach());
      setTimeout(() => this.connect(), RETRY_MS);
    });
    for (const scope of ["connection", "session", "sender"]) {
      container.on(`${scope}_error`, (context) => console.error(scope, String(context[scope].error)));
    }
    const options = { host: "localhost", port, transport: "tls", ca: this.ca, reconnect: false };
    const connection = container.connect({ ...options, max_frame_size: 65536 });
    const answers = connection.open_receiver({ source: "$cbs" });
    const requests = connection.open_sender({ target: "$cbs" });
    const waiting = [...this.devices];
    requests.on("sendable", () => {
      while (waiting.length > 0 && requests.sendable()) requests.send(this.putToken(waiting.shift()));
    });
    answers.on("message", ({ message }) => {
      const status = message.application_properties["status-code"];
      if (status !== 200) throw new Error(`the token of ${message.correlation_id} got ${status}`);
      this.devices.find((device) => device.id === message.correlation_id).attach(connection);
    });
  }

  putToken({ id, key }) {
    const operation = { operation: "put-token", type: "servicebus.windows.net:sastoken" };
    const application_properties = { ...operation, name: `localhost/devices/${id}` };
    return { message_id: id, body: token(id, key), application_properties };
  }

  // Says so when every device has had some more messages accepted.
  progress() {
    const least = Math.min(...this.devices.map(({ accepted }) => accepted.length));
    if (least < this.least + STRIDE) return;
    this.least = least;
    tell("progress", { least });
  }

  end() {
    clearInterval(this.pace);
    const devices = this.devices.map(({ id, next, accepted, released, rejected }) => {
      return [id, { sent: next - 1, accepted, released, rejected }];
    });
    tell("result", { devices: Object.fromEntries(devices) });
    process.exit(0);
  }
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const load = new Load(JSON.parse((await lines.next()).value));
  load.start();
  await lines.next();
  load.isStopping = true;
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
