// The unmodified Azure device SDK for Node, told what to do line by line and telling what it saw, line by line. The same
// commands and events as azure_client.py has: "device" reads them from stdin, "module" takes them as payloads of its
// direct method "do".
"use strict";
const fs = require("fs");
const readline = require("readline");
const { Client, Message, ModuleClient } = require("azure-iot-device");
const { Mqtt, MqttWs } = require("azure-iot-device-mqtt");

function tell(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

function propertiesOf(message) {
  const properties = {};
  for (let i = 0; i < message.properties.count(); i += 1) {
    const { key, value } = message.properties.getItem(i);
    properties[key] = value;
  }
  return properties;
}

function told(input, message) {
  tell("message", {
    body: message.data.toString(),
    input,
    properties: propertiesOf(message),
    message_id: message.messageId || null,
    correlation_id: message.correlationId || null,
    content_type: message.contentType || null,
  });
}

// The SDK offers both ways, but not everywhere: callbacks are the one that every call has.
function called(object, method, ...parameters) {
  return new Promise((resolve, reject) => {
    object[method](...parameters, (error, value) => (error ? reject(error) : resolve(value)));
  });
}

class Told {
  // With `onlySends` nothing but telemetry is set up.
  constructor(sdk, isModule, onlySends = false) {
    this.sdk = sdk;
    this.isModule = isModule;
    this.onlySends = onlySends;
  }

  async open() {
    this.sdk.on("connect", () => tell("connection", { is_connected: true }));
    this.sdk.on("disconnect", () => tell("connection", { is_connected: false }));
    this.sdk.on("error", (error) => tell("background", { error: String(error) }));
    await called(this.sdk, "open");
    if (!this.onlySends) await this.receive();
    tell("ready");
  }

  async receive() {
    if (this.isModule) {
      this.sdk.on("inputMessage", (input, message) => told(input, message));
    } else {
      this.sdk.on("message", (message) => {
        told(null, message);
        this.sdk.complete(message, () => {});
      });
    }
    for (const method of ["do", "echo"]) {
      const listen = this.isModule ? "onMethod" : "onDeviceMethod";
      this.sdk[listen](method, (request, response) => this.method(request, response));
    }
    this.twin = await called(this.sdk, "getTwin");
    // Called at once with the whole section, and then with each patch.
    this.twin.on("properties.desired", (patch) => tell("desired", { patch }));
  }

  async method(request, response) {
    tell("method", { name: request.methodName, payload: request.payload });
    let [status, payload] = [200, request.payload];
    if (request.methodName === "do") {
      try {
        payload = await this.do(request.payload);
      } catch (error) {
        [status, payload] = [500, { error: String(error) }];
      }
    }
    response.send(status, payload, (error) => error && tell("background", { error: String(error) }));
  }

  // Does one command; what it gives is the answer of the method "do".
  async do(command) {
    switch (command.do) {
      case "send": {
        const message = new Message(command.body);
        message.contentType = "application/json";
        message.contentEncoding = "utf-8";
        for (const [key, value] of Object.entries(command.properties || {})) {
          message.properties.add(key, value);
        }
        if (command.output) {
          await called(this.sdk, "sendOutputEvent", command.output, message);
        } else {
          await called(this.sdk, "sendEvent", message);
        }
        tell("sent", { body: command.body });
        return {};
      }
      case "twin": {
        const twin = await called(this.sdk, "getTwin");
        const sections = JSON.parse(JSON.stringify(twin.properties));
        tell("twin", { twin: sections });
        return sections;
      }
      case "report":
        await called(this.twin.properties.reported, "update", command.patch);
        tell("reported", { patch: command.patch });
        return {};
      case "invoke": {
        const call = {
          methodName: command.method,
          payload: command.payload,
          responseTimeoutInSeconds: 9,
          connectTimeoutInSeconds: 5,
        };
        const target = command.module ? [command.device, command.module] : [command.device];
        const answer = await called(this.sdk, "invokeMethod", ...target, call);
        tell("invoked", { answer });
        return answer;
      }
      default:
        throw new Error("unknown command " + command.do);
    }
  }
}

function transportOf(how) {
  // Loaded only where it is used: it takes its time.
  if (how.amqp) return require("azure-iot-device-amqp").Amqp;
  return how.websockets ? MqttWs : Mqtt;
}

async function device(lines) {
  const how = JSON.parse((await lines.next()).value);
  const transport = transportOf(how);
  // For X.509 this SDK drops GatewayHostName: its HostName must be the gateway's.
  const sdk = how.certificate
    ? Client.fromConnectionString(`HostName=${how.gateway};DeviceId=${how.device};x509=true`, transport)
    : Client.fromConnectionString(how.connection_string, transport);
  const options = { ca: fs.readFileSync(how.ca, "utf8") };
  if (how.certificate) {
    options.cert = fs.readFileSync(how.certificate, "utf8");
    options.key = fs.readFileSync(how.key, "utf8");
  }
  await called(sdk, "setOptions", options);
  const client = new Told(sdk, false, how.amqp);
  try {
    await client.open();
  } catch (error) {
    tell("refused", { error: error.name });
    throw error;
  }
  for (let line = await lines.next(); !line.done; line = await lines.next()) {
    const command = JSON.parse(line.value);
    try {
      await client.do(command);
    } catch (error) {
      tell("failed", { command, error: String(error) });
    }
  }
  await called(sdk, "close");
  tell("ended");
}

async function main() {
  if (process.argv[2] === "module") {
    const sdk = await called(ModuleClient, "fromEnvironment", Mqtt);
    process.on("SIGTERM", () => process.exit(0));
    await new Told(sdk, true).open();
    return;
  }
  await device(readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]());
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
