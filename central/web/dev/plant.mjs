// A made-up plant for working on the console without a central: what the paths of central answer, in memory.

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
export const ago = (ms) => new Date(Date.now() - ms).toISOString();

const KINDS = [
  ["hydraulics", "dtmi:plant:press;3", "Press"],
  ["spindle", "dtmi:plant:spindle;2", "CNC"],
  ["climate", "dtmi:plant:climate;1", "Hall"],
  ["energy", "dtmi:plant:meter;1", "Meter"],
];

export function state(verdict, sinceMs, more = {}) {
  const lifecycle =
    verdict === "blocked" ? "Blocked" : verdict === "waiting" ? "WaitingForApproval" : "Provisioned";
  return {
    connectivity:
      verdict === "ok" || verdict === "degraded"
        ? "connected"
        : verdict === "unknown"
          ? "unknown"
          : "disconnected",
    since: ago(sinceMs),
    lifecycle,
    verdict,
    reason: null,
    modulesWanted: null,
    modulesRunning: null,
    ...more,
  };
}

export function makePlant() {
  const devices = new Map();
  const add = (row) =>
    devices.set(row.id, {
      manifest: null,
      children: 0,
      gateway: null,
      template: null,
      organization: "root",
      lastSeen: row.state.since,
      lastTelemetryAt: row.state.since,
      displayName: row.id,
      enabled: true,
      key: Buffer.from(`${row.id}-key-of-32-bytes-------------`.slice(0, 32)).toString("base64"),
      desired: {},
      reported: {},
      version: 1,
      metadata: {},
      commands: [],
      messages: [],
      ...row,
    });
  for (let at = 1; at <= 12; at += 1) {
    const id = `gw-line-${String(at).padStart(2, "0")}`;
    const is =
      at === 2
        ? state("offline", 124 * MINUTE, {
            reason: "Its link to central is down since 124 min; before, it reported DNS failures.",
            modulesWanted: 4,
            modulesRunning: 4,
          })
        : at === 7
          ? state("degraded", 38 * MINUTE, {
              reason: "Module vision-filter does not run.",
              modulesWanted: 6,
              modulesRunning: 5,
            })
          : state("ok", at * 26 * HOUR, { modulesWanted: 4, modulesRunning: 4 });
    add({
      id,
      kind: "gateway",
      displayName: `Line ${at}`,
      state: is,
      manifest: {
        id: at % 2 ? "line-press" : "line-cnc",
        name: at % 2 ? "Press line" : "CNC line",
        upToDate: at !== 5,
      },
      children: 0,
    });
  }
  for (let at = 1; at <= 1240; at += 1) {
    const [kind, template, word] = KINDS[at % 4];
    const number = String(at).padStart(3, "0");
    const gateway = at % 9 === 0 ? null : `gw-line-${String((at % 12) + 1).padStart(2, "0")}`;
    let is = state("ok", (at % 50) * 7 * HOUR + 3 * MINUTE);
    if (gateway === "gw-line-02") is = state("unknown", 124 * MINUTE, { reason: "gw-line-02 is down" });
    if (at === 36) is = state("offline", 131 * MINUTE, { reason: "It sends a wrong key." });
    if (at === 45) is = state("blocked", 5 * HOUR);
    if (at === 54) is = state("waiting", 41 * MINUTE);
    if (at === 63) is = state("degraded", 14 * MINUTE, { reason: "Its last 12 messages are no JSON." });
    if (at === 72)
      is = state("unknown", 4 * 24 * HOUR, {
        connectivity: "never",
        lifecycle: "Registered",
        since: null,
        reason: "It never connected.",
      });
    add({
      id: `${word.toLowerCase()}-${number}-${kind}`,
      kind: "device",
      displayName: `${word} ${at} ${kind}`,
      template: at % 17 ? template : null,
      gateway,
      state: is,
      enabled: is.verdict !== "blocked",
      lastSeen: is.connectivity === "never" ? null : is.since,
      lastTelemetryAt: is.connectivity === "never" ? null : is.verdict === "ok" ? ago(2000) : is.since,
    });
    if (gateway) devices.get(gateway).children += 1;
  }
  return devices;
}

export const MODULES = [
  ["plc-reader", "running", "Running", "registry.plant/plc-reader:3.1.7"],
  ["spindle-bridge", "running", "Running", "registry.plant/spindle-bridge:5.0.2"],
  [
    "vision-filter",
    "backoff",
    "ended with code 137: out of memory at its limit of 256 MiB; restart 14 of 20",
    "registry.plant/vision-filter:2.4.0",
  ],
  ["label-feed", "stopped", "stopped", "registry.plant/label-feed:0.9.1"],
];

export function why(device) {
  const { id, state: is } = device;
  const cause = (causeId, sentence, evidence, mend) => ({
    verdict: is.verdict,
    causes: [{ id: causeId, sentence, certainty: "certain", evidence, mend }],
  });
  if (is.verdict === "offline" && device.kind === "gateway") {
    return cause(
      "link-down",
      `The link of ${id} to central is down since 124 min; just before, it reported DNS failures.`,
      [
        { at: ago(124 * MINUTE), text: "Its connection ended: no packet for 90 s." },
        {
          at: ago(125 * MINUTE),
          text: "It reported: lookup of central.plant.example failed, 3 times in a row.",
        },
      ],
      {
        text: "Check the network and the name server of the gateway.",
        action: "openGateway",
        command: "edge-agent check",
      },
    );
  }
  if (is.verdict === "offline")
    return cause(
      "wrong-key",
      `It reaches central, but with the key of another device. central has refused it 212 times since ${ago(131 * MINUTE).slice(11, 16)}.`,
      [
        {
          at: ago(12_000),
          text: "Refused from 10.20.7.31: the signature was made with another key, fingerprint 9F3A 61C0.",
        },
        { at: ago(131 * MINUTE), text: "Its last good connection ended." },
      ],
      {
        text: "Give it its own key: enter its connection string on the device.",
        action: "openConnect",
        command: null,
      },
    );
  if (is.verdict === "degraded" && device.kind === "gateway")
    return cause(
      "module-not-running",
      "Module vision-filter does not run: out of memory at its limit of 256 MiB, 14 restarts.",
      [{ at: ago(2 * MINUTE), text: "vision-filter ended with code 137." }],
      {
        text: "Raise its memory limit in the manifest, or assign the manifest that ran before.",
        action: "openModules",
        command: null,
      },
    );
  if (is.verdict === "degraded")
    return cause(
      "payload-undecodable",
      "Its last 12 messages are no JSON.",
      [{ at: ago(MINUTE), text: "expected `,` or `}` at line 1 column 17" }],
      { text: "Correct the firmware; the messages are kept as they came.", action: "openRaw", command: null },
    );
  if (is.verdict === "blocked")
    return cause(
      "blocked",
      "An operator blocked it.",
      [{ at: ago(5 * HOUR), text: "shift-lead blocked it." }],
      { text: "Unblock it when it may connect again.", action: "unblock", command: null },
    );
  if (is.connectivity === "never")
    return cause(
      "never-connected",
      "It has never connected.",
      [{ at: null, text: "No attempt has arrived with its id, right or wrong." }],
      { text: "Enter its connection string on the device.", action: "openConnect", command: null },
    );
  if (is.verdict === "unknown")
    return cause(
      "gateway-down",
      `${device.gateway}, which it stands behind, is down. The device may well be working.`,
      [{ at: ago(124 * MINUTE), text: `The link of ${device.gateway} went down.` }],
      { text: `Bring ${device.gateway} back.`, action: null, command: null },
    );
  return { verdict: "ok", causes: [] };
}

/** A walk that looks like a measurement, the same for the same name. */
export function walk(name, at) {
  const seed = [...name].reduce((sum, character) => sum * 31 + character.charCodeAt(0), 7) % 997;
  return (
    100 +
    (seed % 80) +
    8 * Math.sin(at / 340_000 + seed) +
    3 * Math.sin(at / 41_000 + seed * 2) +
    Math.sin(at / 7000 + seed * 3)
  );
}
export const NAMES = ["systemPressure", "oilTemperature", "strokeRate"];
