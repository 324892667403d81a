// A device that enrols itself by the unmodified Azure SDK for Node, and then works as the device that it became. Told how, and
// telling what it saw, as azure_enrol.py does. The provisioning client takes no authority: NODE_EXTRA_CA_CERTS names it.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const readline = require("readline");
const { Client, Message } = require("azure-iot-device");
const { Mqtt } = require("azure-iot-device-mqtt");
const { ProvisioningDeviceClient } = require("azure-iot-provisioning-device");
const { Mqtt: ProvisioningMqtt } = require("azure-iot-provisioning-device-mqtt");
const { SymmetricKeySecurityClient } = require("azure-iot-security-symmetric-key");
const { X509Security } = require("azure-iot-security-x509");

function tell(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

function told(message) {
  const properties = {};
  for (let i = 0; i < message.properties.count(); i += 1) {
    const { key, value } = message.properties.getItem(i);
    properties[key] = value;
  }
  const ack = properties["iothub-ack"];
  // The SDK leaves it among the application's properties.
  delete properties["iothub-ack"];
  tell("message", {
    body: message.data.toString(),
    properties,
    message_id: message.messageId,
    content_type: message.contentType,
    expiry: message.expiryTimeUtc,
    ack,
  });
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const how = JSON.parse((await lines.next()).value);
  let security;
  let key;
  let x509;
  if (how.certificate) {
    x509 = { cert: fs.readFileSync(how.certificate, "utf8"), key: fs.readFileSync(how.key, "utf8") };
    security = new X509Security(how.id, x509);
  } else {
    key = crypto.createHmac("sha256", Buffer.from(how.group_key, "base64")).update(how.id).digest("base64");
    security = new SymmetricKeySecurityClient(how.id, key);
  }
  const registering = ProvisioningDeviceClient.create(how.host, how.scope, new ProvisioningMqtt(), security);
  tell("enrolling");
  const state = await registering.register();
  tell("enrolled", {
    status: state.status,
    hub: state.assignedHub,
    device: state.deviceId,
    substatus: state.substatus,
  });
  const gateway = how.gateway ? `;GatewayHostName=${how.gateway}` : "";
  // For X.509 this SDK drops GatewayHostName: its HostName must be the gateway's.
  const device = x509
    ? Client.fromConnectionString(`HostName=${how.gateway || state.assignedHub};DeviceId=${how.id};x509=true`, Mqtt)
    : Client.fromConnectionString(
        `HostName=${state.assignedHub};DeviceId=${how.id};SharedAccessKey=${key}${gateway}`,
        Mqtt,
      );
  await device.setOptions({ ca: fs.readFileSync(how.ca, "utf8"), ...x509 });
  await device.open();
  device.on("message", (message) => {
    told(message);
    device.complete(message, () => {});
  });
  const message = new Message('{"enrolled": true}');
  message.contentType = "application/json";
  message.contentEncoding = "utf-8";
  await device.sendEvent(message);
  tell("sent");
  for (let line = await lines.next(); !line.done; line = await lines.next());
  await device.close();
  tell("ended");
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
