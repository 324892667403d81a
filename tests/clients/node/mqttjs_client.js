// MQTT.js, told what to do line by line and telling what it saw; the same lines as paho_client.py has.
"use strict";
const fs = require("fs");
const readline = require("readline");
const mqtt = require("mqtt");

function tell(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

// The names of the MQTT specification, as the test speaks them, and those of this library.
const NAMES = {
  ResponseTopic: "responseTopic",
  ContentType: "contentType",
  UserProperty: "userProperties",
  CorrelationData: "correlationData",
};

function propertiesOf(given = {}) {
  const properties = {};
  for (const [name, value] of Object.entries(given)) {
    let converted = value;
    if (name === "UserProperty") converted = Object.fromEntries(value);
    if (name === "CorrelationData") converted = Buffer.from(value);
    properties[NAMES[name]] = converted;
  }
  return properties;
}

function shown(properties = {}) {
  const fields = {};
  for (const [name, own] of Object.entries(NAMES)) {
    const value = properties[own];
    if (value === undefined) continue;
    fields[name] = Buffer.isBuffer(value) ? value.toString() : value;
    if (name === "UserProperty") fields[name] = Object.entries(value);
  }
  return fields;
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const how = JSON.parse((await lines.next()).value);
  const options = {
    clientId: how.client_id,
    username: how.user,
    password: how.password,
    protocolVersion: how.version,
    clean: how.clean,
    reconnectPeriod: 0,
  };
  if (how.version === 5 && !how.clean) options.properties = { sessionExpiryInterval: 600 };
  if (how.ca) options.ca = fs.readFileSync(how.ca);
  if (how.will) options.will = how.will;
  const tls = how.ca ? "s" : "";
  const url = how.websockets ? `ws${tls}://localhost:${how.port}/mqtt` : `mqtt${tls}://localhost:${how.port}`;
  const client = mqtt.connect(url, options);
  client.on("connect", (answer) =>
    tell("connected", { session_present: answer.sessionPresent, code: answer.reasonCode || answer.returnCode || 0 }),
  );
  client.on("error", (error) => tell("failed", { error: String(error) }));
  client.on("message", (topic, payload, packet) =>
    tell("message", {
      topic,
      payload: payload.toString(),
      qos: packet.qos,
      retain: packet.retain,
      properties: shown(packet.properties),
    }),
  );
  for (let line = await lines.next(); !line.done; line = await lines.next()) {
    const command = JSON.parse(line.value);
    if (command.do === "subscribe") {
      const granted = await client.subscribeAsync(command.filter, { qos: command.qos });
      tell("subscribed", { codes: granted.map((one) => one.qos) });
    } else if (command.do === "publish") {
      const { qos, retain } = command;
      const more = { qos, retain, properties: propertiesOf(command.properties) };
      await client.publishAsync(command.topic, command.payload, more);
      tell("published");
    } else if (command.do === "die") {
      client.stream.destroy();
      process.exit(0);
    }
  }
  await client.endAsync();
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
