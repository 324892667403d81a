// A device that connects with what the console's Connect page shows, and answers commands and desired properties.
"use strict";
const { createHmac } = require("crypto");
const mqtt = require("mqtt");

/** Reads the line for mosquitto: the address, the account and the topic in it. */
function parseMosquitto(text, ca) {
  const of = (flag) => {
    const found = new RegExp(`-${flag} (?:'([^']*)'|(\\S+))`).exec(text);
    if (!found) throw new Error(`the line has no -${flag}: ${text}`);
    return found[1] === undefined ? found[2] : found[1];
  };
  return { host: of("h"), port: Number(of("p")), clientId: of("i"), username: of("u"), password: of("P"), topic: of("t"), ca };
}

/** Connects once; gives the client, or the refusal as an error. */
function connect(how) {
  const client = mqtt.connect(`mqtts://${how.host}:${how.port}`, {
    clientId: how.clientId,
    username: how.username,
    password: how.password,
    ca: how.ca,
    reconnectPeriod: 0,
    connectTimeout: 60_000,
  });
  return new Promise((resolve, reject) => {
    client.once("connect", () => resolve(client));
    client.once("error", (error) => {
      client.end(true);
      reject(error);
    });
  });
}

/** Connects, and again until it is refused. */
async function connectRefused(how) {
  try {
    const client = await connect(how);
    client.end(true);
  } catch (error) {
    return error;
  }
  throw new Error("central let in a device with a wrong key");
}

/** Registers as Azure's provisioning clients do, by a group's key; gives the answer, and leaves. */
async function enrol({ host, port, ca, scope, groupKey, id }) {
  const hmac = (key, text) => createHmac("sha256", Buffer.from(key, "base64")).update(text).digest("base64");
  const resource = encodeURIComponent(`${scope}/registrations/${id}`);
  const expires = Math.floor(Date.now() / 1000) + 3600;
  const signature = encodeURIComponent(hmac(hmac(groupKey, id), `${resource}\n${expires}`));
  const password = `SharedAccessSignature sr=${resource}&sig=${signature}&se=${expires}`;
  const client = await connect({ host, port, ca, clientId: id, username: `${scope}/registrations/${id}/api-version=2019-03-31`, password });
  const answer = new Promise((resolve) => client.once("message", (at, payload) => resolve(JSON.parse(payload.toString()))));
  await client.subscribeAsync("$dps/registrations/res/#");
  await client.publishAsync("$dps/registrations/PUT/iotdps-register/?$rid=1", JSON.stringify({ registrationId: id }), { qos: 1 });
  const given = await answer;
  await client.endAsync(true);
  return given;
}

class Device {
  constructor(client, topic) {
    this.client = client;
    this.topic = topic;
    this.desired = () => ({});
    client.on("message", (at, payload) => this.#take(at, JSON.parse(payload.toString() || "null")));
  }

  static async open(how) {
    const device = new Device(await connect(how), how.topic);
    await device.client.subscribeAsync(["$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/twin/res/#"]);
    return device;
  }

  send(values) {
    return this.client.publishAsync(this.topic, JSON.stringify(values), { qos: 1 });
  }

  #take(at, body) {
    const method = /^\$iothub\/methods\/POST\/([^/]+)\/\?\$rid=(.+)$/.exec(at);
    if (method) {
      const answer = { did: decodeURIComponent(method[1]), got: body };
      this.client.publish(`$iothub/methods/res/200/?$rid=${method[2]}`, JSON.stringify(answer));
    } else if (at.startsWith("$iothub/twin/PATCH/properties/desired/")) {
      const { $version: version, ...wanted } = body;
      const reported = {};
      for (const [name, value] of Object.entries(wanted)) {
        const isBad = value === "bad";
        reported[name] = { value: isBad ? "good" : value, ac: isBad ? 400 : 200, av: version, ad: isBad ? "not a mode" : "taken" };
      }
      this.client.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", JSON.stringify(reported));
    }
  }

  closed() {
    return new Promise((resolve) => this.client.once("close", resolve));
  }

  end() {
    return this.client.endAsync(true);
  }
}

/** How a device with this key connects to central. */
function withKey({ host, port, hostname, ca }, id, key) {
  const resource = encodeURIComponent(`${hostname}/devices/${id}`);
  const expires = Math.floor(Date.now() / 1000) + 3600;
  const signature = createHmac("sha256", Buffer.from(key, "base64")).update(`${resource}\n${expires}`).digest("base64");
  const password = `SharedAccessSignature sr=${resource}&sig=${encodeURIComponent(signature)}&se=${expires}`;
  return { host, port, ca, clientId: id, username: `${hostname}/${id}/?api-version=2021-04-12`, password, topic: `devices/${id}/messages/events/` };
}

module.exports = { connect, connectRefused, Device, enrol, parseMosquitto, withKey };
