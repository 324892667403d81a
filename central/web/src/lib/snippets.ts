// Lines to paste, with the values of one device filled in. Each works as it stands: what else it needs stands in its first lines.

import { quoted } from "./curl";
import { sasToken } from "./sas";
import type { components } from "./schema";

export type Connection = Required<components["schemas"]["ConnectionBody"]>;
export type Subject = { id: string; key: string; gateway: string | null };
export type Snippet = { id: string; title: string; where: string; text: string };

const API_VERSION = "2021-04-12";

/** The host that the device reaches: its gateway's, where it has one. */
export function hostOf(connection: Connection, subject: Subject): { host: string; port: number } {
  // A gateway listens where Azure's SDKs look.
  return subject.gateway
    ? { host: subject.gateway, port: 8883 }
    : { host: connection.hostname, port: connection.mqttsPort };
}

export function connectionString(connection: Connection, subject: Subject): string {
  const base = `HostName=${connection.hostname};DeviceId=${subject.id};SharedAccessKey=${subject.key}`;
  return subject.gateway ? `${base};GatewayHostName=${subject.gateway}` : base;
}

export function userName(connection: Connection, subject: Subject): string {
  return `${connection.hostname}/${subject.id}/?api-version=${API_VERSION}`;
}

/** Writes the certificate authority that the device must trust, when it is central's own. */
function caStep(connection: Connection, subject: Subject): string {
  if (subject.gateway)
    return `# ca.pem: the gateway's, from /var/lib/edge-agent/ca.pem on ${subject.gateway}`;
  if (!connection.caPem)
    return "# central's certificate is of a public or plant authority: put that authority into ca.pem";
  return `cat > ca.pem <<'EOF'\n${connection.caPem.trim()}\nEOF`;
}

export function snippets(connection: Connection, subject: Subject, nowMs: number): Snippet[] {
  const { host, port } = hostOf(connection, subject);
  // A day: long enough to try, short enough to find its way into a wiki without harm.
  const expires = Math.floor(nowMs / 1000) + 24 * 3600;
  const password = sasToken(connection.hostname, subject.id, subject.key, expires);
  const topic = `devices/${subject.id}/messages/events/`;
  const text = connectionString(connection, subject);
  const mosquitto = [
    caStep(connection, subject),
    `mosquitto_pub -h ${quoted(host)} -p ${port} --cafile ca.pem -q 1 \\`,
    `  -i ${quoted(subject.id)} -u ${quoted(userName(connection, subject))} \\`,
    `  -P ${quoted(password)} \\`,
    `  -t ${quoted(topic)} -m '{"temperature": 21.5}'`,
  ].join("\n");
  const python = [
    "# pip install azure-iot-device",
    "import json",
    "from azure.iot.device import IoTHubDeviceClient, Message",
    "",
    `CONNECTION = ${JSON.stringify(text)}`,
    'with open("ca.pem") as ca:',
    "    client = IoTHubDeviceClient.create_from_connection_string(CONNECTION, server_verification_cert=ca.read())",
    "client.connect()",
    'message = Message(json.dumps({"temperature": 21.5}), "utf-8", "application/json")',
    "client.send_message(message)",
    "client.shutdown()",
  ].join("\n");
  const node = [
    "// npm install mqtt",
    'const { createHmac } = require("node:crypto");',
    'const { readFileSync } = require("node:fs");',
    'const mqtt = require("mqtt");',
    "",
    `const hub = ${JSON.stringify(connection.hostname)}, id = ${JSON.stringify(subject.id)}, key = ${JSON.stringify(subject.key)};`,
    "const resource = encodeURIComponent(`${hub}/devices/${id}`);",
    "const expires = Math.floor(Date.now() / 1000) + 3600;",
    'const signature = createHmac("sha256", Buffer.from(key, "base64")).update(`${resource}\\n${expires}`).digest("base64");',
    `const client = mqtt.connect(${JSON.stringify(`mqtts://${host}:${port}`)}, {`,
    '  clientId: id, ca: readFileSync("ca.pem"),',
    `  username: ${JSON.stringify(userName(connection, subject))},`,
    "  password: `SharedAccessSignature sr=${resource}&sig=${encodeURIComponent(signature)}&se=${expires}`,",
    "});",
    `client.on("connect", () => client.publish(${JSON.stringify(topic)}, JSON.stringify({ temperature: 21.5 }), { qos: 1 }, () => client.end()));`,
  ].join("\n");
  return [
    {
      id: "mosquitto",
      title: "mosquitto",
      where: "in a shell that has mosquitto_pub; the password is good for a day",
      text: mosquitto,
    },
    { id: "python", title: "Python", where: "first.py, with ca.pem beside it", text: python },
    { id: "node", title: "Node.js", where: "first.js, with ca.pem beside it", text: node },
  ];
}
