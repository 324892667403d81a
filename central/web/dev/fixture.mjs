// A stand-in for central while working on the console: `node dev/fixture.mjs`, then `npm run dev`. It serves dist too, with the
// Content-Security-Policy of central, so that what the policy refuses is seen here first. It keeps nothing and checks little.

import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { ago, MODULES, makePlant, NAMES, state, walk, why } from "./plant.mjs";

const PORT = Number(process.env.PORT ?? 8099);
const EMPTY = process.argv.includes("--empty");
const root = new URL("../dist/", import.meta.url).pathname;
const devices = EMPTY ? new Map() : makePlant();
const manifests = new Map();
const streams = new Set();
const audit = [];
const users = new Map(
  EMPTY ? [] : [["night-shift", { role: "administrator", password: "night-shift-pass" }]],
);
const ROLES = { administrator: "Administrator", builder: "Builder", operator: "Operator", viewer: "Viewer" };
const PERMISSIONS = Object.entries({
  deviceTemplates: "view manage delete",
  deviceInstances: "view update create delete executeCommands export",
  edgeManifests: "view manage deploy delete",
  connectivity: "view readInstance manageInstance exportKeys readGlobal manageGlobal deleteGlobal",
  secrets: "view",
  auditLog: "view",
  roles: "view manage delete",
  users: "view manage delete",
  apiTokens: "view create delete",
}).flatMap(([area, acts]) => acts.split(" ").map((act) => `${area}.${act}`));
const LACKS = {
  administrator: /^$/,
  builder: /^(users|apiTokens|auditLog)|exportKeys|^roles\.(?!view$)/,
  operator: /^(users|apiTokens|auditLog)|exportKeys|delete|^roles\.(?!view$)/,
  viewer: /^(users|apiTokens|auditLog|secrets)|\.(?!view$)/,
};
const permissionsOf = (role) => PERMISSIONS.filter((id) => !LACKS[role].test(id));
let session = null;
let eventNumber = 0;
let messageNumber = 1000;

for (const [id, displayName] of EMPTY
  ? []
  : [
      ["line-press", "Press line"],
      ["line-cnc", "CNC line"],
    ]) {
  const modules = Object.fromEntries(
    MODULES.map(([name, , , image]) => [
      name,
      {
        version: "1.0",
        type: "docker",
        status: name === "label-feed" ? "stopped" : "running",
        restartPolicy: "always",
        settings: { image, createOptions: "{}" },
        env: { BATCH: { value: "4" } },
      },
    ]),
  );
  manifests.set(id, {
    id,
    displayName,
    etag: '"1"',
    data: {
      modulesContent: {
        $edgeAgent: {
          "properties.desired": {
            schemaVersion: "1.1",
            runtime: { type: "docker", settings: {} },
            systemModules: {},
            modules,
          },
        },
        $edgeHub: {
          "properties.desired": {
            schemaVersion: "1.1",
            routes: { upstream: "FROM /messages/* INTO $upstream" },
            storeAndForwardConfiguration: { timeToLiveSecs: 7200 },
          },
        },
      },
    },
  });
}

class Refused extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}
const need = (id) =>
  devices.get(id) ??
  (() => {
    throw new Refused(404, `there is no device ${id}`);
  })();

function tell(type, data) {
  eventNumber += 1;
  for (const stream of streams) {
    const isOf = stream.devices.length === 0 ? type !== "telemetry" : stream.devices.includes(data.device);
    if (isOf)
      stream.response.write(`id: 1-${eventNumber}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
  }
}

function setState(device, next) {
  device.state = next;
  tell("state", { device: device.id, state: next });
}

function sentValues(device) {
  return Object.fromEntries(
    NAMES.map((name) => [name, Number(walk(device.id + name, Date.now()).toFixed(2))]),
  );
}

setInterval(() => {
  const watched = new Set([...streams].flatMap((stream) => stream.devices));
  for (const id of watched) {
    const device = devices.get(id);
    if (!device || !["ok", "degraded"].includes(device.state.verdict)) continue;
    messageNumber += 1;
    const values = { ...sentValues(device), state: "Running" };
    device.messages.push({
      id: messageNumber,
      device: id,
      enqueuedTime: ago(0),
      properties: { "$.cid": id, line: "4" },
      body: values,
    });
    device.messages.splice(0, device.messages.length - 300);
    tell("telemetry", {
      device: id,
      module: null,
      component: null,
      at: ago(0),
      enqueuedAt: ago(0),
      values,
      message: messageNumber,
    });
  }
}, 1000);
setInterval(() => {
  for (const { response } of streams) response.write(": ping\n\n");
}, 15_000);

const ORDER = ["offline", "degraded", "waiting", "unknown", "blocked", "ok"];
function filtered(query) {
  return [...devices.values()].filter((row) => {
    const kind = query.get("kind") ?? "all";
    const search = (query.get("search") ?? "").toLowerCase();
    if (kind !== "all" && `${row.kind}s` !== kind) return false;
    if (search && !row.id.toLowerCase().includes(search) && !row.displayName.toLowerCase().includes(search))
      return false;
    if (query.get("verdict") && row.state.verdict !== query.get("verdict")) return false;
    if (query.has("template") && (row.template ?? "") !== query.get("template")) return false;
    return !query.get("gateway") || row.gateway === query.get("gateway");
  });
}
const shownRow = ({
  id,
  displayName,
  kind,
  template,
  gateway,
  organization,
  state: is,
  lastSeen,
  lastTelemetryAt,
  manifest,
  children,
}) => ({
  id,
  displayName,
  kind,
  template,
  gateway,
  organization,
  state: is,
  lastSeen,
  lastTelemetryAt,
  manifest,
  children,
});

function grid(query) {
  const key = {
    id: (row) => row.id,
    name: (row) => row.displayName,
    lastSeen: (row) => row.lastSeen ?? "",
    verdict: (row) => ORDER.indexOf(row.state.verdict),
  }[query.get("sort") ?? "id"];
  const rows = filtered(query).sort((one, other) =>
    key(one) < key(other) ? -1 : key(one) > key(other) ? 1 : one.id < other.id ? -1 : 1,
  );
  if (query.get("order") === "desc") rows.reverse();
  const start = Number(query.get("cursor") ?? 0);
  const limit = Number(query.get("limit") ?? 50);
  return {
    value: rows.slice(start, start + limit).map(shownRow),
    nextCursor: start + limit < rows.length ? String(start + limit) : null,
  };
}
function counts(query) {
  const answer = { total: 0, byVerdict: {}, byTemplate: {} };
  for (const row of filtered(query)) {
    answer.total += 1;
    answer.byVerdict[row.state.verdict] = (answer.byVerdict[row.state.verdict] ?? 0) + 1;
    answer.byTemplate[row.template ?? ""] = (answer.byTemplate[row.template ?? ""] ?? 0) + 1;
  }
  return answer;
}

function overview() {
  const of = { devices: {}, gateways: {} };
  const needsYou = [];
  for (const row of devices.values()) {
    const kind = of[`${row.kind}s`];
    kind[row.state.verdict] = (kind[row.state.verdict] ?? 0) + 1;
    if (
      ["ok", "blocked"].includes(row.state.verdict) ||
      (row.state.verdict === "unknown" && row.gateway === "gw-line-02")
    )
      continue;
    const [cause] = why(row).causes;
    needsYou.push({
      device: row.id,
      displayName: row.displayName,
      kind: row.kind,
      state: row.state,
      since: row.state.since,
      causeId: cause?.id ?? "unknown",
      sentence: cause?.sentence ?? "Its key is good; approval is off.",
      group: row.state.verdict === "offline" || row.kind === "gateway" ? "now" : "later",
      hidden: row.id === "gw-line-02" ? row.children : 0,
    });
  }
  needsYou.sort((one, other) => ORDER.indexOf(one.state.verdict) - ORDER.indexOf(other.state.verdict));
  return {
    counts: of,
    needsYou,
    ingest: { messagesPerSecond: EMPTY ? 0 : 1662.4 + Math.random() * 40 },
    storage: { bytesUsed: 268e9, bytesFree: 212e9, limitBytes: 480e9 },
    changes: audit.slice(0, 20),
  };
}

function series(id, query) {
  const [from, to] = [Date.parse(query.get("from")), Date.parse(query.get("to"))];
  const stepMs = Math.max(1000, Math.round((to - from) / Number(query.get("points") ?? 500)));
  const lost = [from + (to - from) * 0.55, from + (to - from) * 0.6];
  return {
    from: ago(Date.now() - from),
    to: ago(Date.now() - to),
    stepMs,
    series: query.getAll("name").map((name) => {
      const one = { name, t: [], min: [], avg: [], max: [], last: [], count: [] };
      for (let at = from - (from % stepMs); at < to; at += stepMs) {
        if (at > lost[0] && at < lost[1]) continue;
        const value = walk(id + name, at);
        one.t.push(at);
        one.avg.push(value);
        one.min.push(value - 0.8);
        one.max.push(value + 0.8);
        one.last.push(value);
        one.count.push(1);
      }
      return one;
    }),
    losses: [
      {
        from: ago(Date.now() - lost[0]),
        to: ago(Date.now() - lost[1]),
        count: 2760,
        cause: "time to live passed in the queue while the link was down",
      },
    ],
  };
}

function status(device) {
  const isGateway = device.kind === "gateway";
  const modules = MODULES.map(([name, is, reason, image]) => ({
    name,
    connected: is === "running",
    since: is === "running" ? ago(5e8) : null,
    desiredStatus: name === "label-feed" ? "stopped" : "running",
    status: device.id === "gw-line-07" ? is : is === "backoff" ? "running" : is,
    reason,
    nextTry: is === "backoff" && device.id === "gw-line-07" ? ago(-252_000) : null,
    restarts: is === "backoff" ? 14 : 0,
    image,
  }));
  return {
    id: device.id,
    connected: device.state.connectivity === "connected",
    since: device.state.since,
    lastSeen: device.lastSeen,
    gateway: device.gateway,
    identityConflict: null,
    state: device.state,
    modules: isGateway ? modules : [],
    health: isGateway
      ? {
          updated: ago(2000),
          findings:
            device.id === "gw-line-07"
              ? [
                  {
                    id: "disk",
                    level: "warn",
                    evidence: "Disk 91 % used, 14 GB of it by Docker images that no module uses.",
                    mend: "Remove them: edge-agent images prune",
                  },
                ]
              : [],
          refusals: [],
        }
      : null,
  };
}
function twin(device, module) {
  if (module !== "$edgeAgent")
    return {
      desired: { $version: device.version, ...device.desired },
      reported: { $version: 3, ...device.reported },
    };
  const assigned = manifests.get(device.manifest?.id);
  const modules = assigned?.data.modulesContent.$edgeAgent["properties.desired"].modules ?? {};
  const reported = Object.fromEntries(
    Object.entries(modules).map(([name, wanted]) => [
      name,
      {
        settings: { image: wanted.settings.image },
        lastStartTimeUtc: ago(5e8),
        lastExitTimeUtc: "0001-01-01T00:00:00Z",
        exitCode: name === "vision-filter" && device.id === "gw-line-07" ? 137 : 0,
        restartPolicy: "always",
      },
    ]),
  );
  return {
    desired: { $version: 4, modules },
    reported: {
      $version: 9,
      lastDesiredVersion: 4,
      lastDesiredStatus: { code: 200 },
      version: { version: "0.9.0" },
      runtime: { type: "docker", platform: { os: "linux", architecture: "x86_64", version: "26.1" } },
      modules: reported,
    },
  };
}
function properties(device) {
  return { ...device.desired, ...device.reported, $metadata: device.metadata };
}
function desire(device, changes) {
  device.version += 1;
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) {
      delete device.desired[name];
      delete device.metadata[name];
      continue;
    }
    device.desired[name] = value;
    device.metadata[name] = { lastUpdateTime: ago(0), desiredValue: value, desiredVersion: device.version };
    tell("properties", { device: device.id, module: null, section: "desired", version: device.version });
    setTimeout(() => {
      const isBad = value === "bad";
      device.reported[name] = isBad ? "good" : value;
      Object.assign(device.metadata[name], {
        ackCode: isBad ? 400 : 200,
        ackVersion: device.version,
        ackDescription: isBad ? "date is in the past" : "",
      });
      tell("properties", { device: device.id, module: null, section: "reported", version: 4 });
    }, 1500);
  }
}
function run(device, name, request) {
  const command = {
    id: randomUUID(),
    name,
    module: null,
    by: session?.user.name,
    request: request.request ?? null,
    connectionTimeout: 0,
    responseTimeout: 30,
    requestedTime: ago(120),
    endedTime: ago(0),
    responseCode: 200,
    response: { done: name, echo: request.request ?? null },
  };
  if (device.state.connectivity !== "connected") throw new Refused(404, `${device.id} is not connected`);
  device.commands.unshift(command);
  tell("command", { device: device.id, module: null, id: command.id, name, status: "ended" });
  return [201, command];
}
function store(id, body, method) {
  const text = JSON.stringify(body.data ?? {});
  const bad = /"restartPolicy":"(?!always|on-failure|on-unhealthy|never)([^"]*)"/.exec(text);
  if (bad)
    throw new Refused(
      422,
      `modulesContent.$edgeAgent.properties.desired.modules.vision-filter.restartPolicy: found \`${bad[1]}\`; allowed are always, on-failure, on-unhealthy, never`,
    );
  const old = manifests.get(id) ?? { id, displayName: id, etag: '"0"' };
  const made = { ...old, ...body, id, etag: `"${Number(old.etag.replaceAll('"', "")) + 1}"` };
  manifests.set(id, made);
  if (method === "PATCH")
    for (const row of devices.values())
      if (row.manifest?.id === id) row.manifest = { ...row.manifest, upToDate: false };
  return [200, made];
}

function device(row) {
  return {
    id: row.id,
    etag: '"1"',
    displayName: row.displayName,
    ...(row.template ? { template: row.template } : {}),
    simulated: false,
    enabled: row.enabled,
    provisioned: row.state.connectivity !== "never",
    ...(row.kind === "gateway" ? { type: ["iotEdge"] } : {}),
    ...(row.manifest
      ? {
          deploymentManifest: {
            id: row.manifest.id,
            displayName: row.manifest.name,
            data: manifests.get(row.manifest.id)?.data,
          },
        }
      : {}),
  };
}
function registered(id, body) {
  let row = devices.get(id);
  if (!row) {
    const kind = body.type?.length ? "gateway" : "device";
    row = {
      id,
      kind,
      displayName: body.displayName ?? id,
      template: body.template ?? null,
      gateway: null,
      organization: "root",
      state: state("unknown", 0, {
        connectivity: "never",
        lifecycle: "Registered",
        since: null,
        reason: "It never connected.",
      }),
      lastSeen: null,
      lastTelemetryAt: null,
      manifest: null,
      children: 0,
      enabled: true,
      key: Buffer.alloc(32, 7).toString("base64"),
      desired: {},
      reported: {},
      metadata: {},
      version: 1,
      commands: [],
      messages: [],
    };
    devices.set(id, row);
    tell("state", { device: id, state: row.state });
    // It connects by itself after a while, so that the Connect page can be seen to tick.
    setTimeout(() => {
      row.lastSeen = ago(0);
      setState(row, state("ok", 0));
    }, 8000);
  }
  if (body.displayName) row.displayName = body.displayName;
  if (body.enabled === false && row.enabled) {
    row.before = row.state;
    row.enabled = false;
    setState(row, state("blocked", 0));
  }
  if (body.enabled === true && !row.enabled) {
    row.enabled = true;
    setState(row, row.before ?? state("ok", 0));
  }
  return [200, device(row)];
}

const CONNECTION = {
  hostname: "central.plant.example",
  mqttsPort: 8884,
  wssPort: 443,
  idScope: "0ne00A1B2C3",
  caPem: "-----BEGIN CERTIFICATE-----\nMIIBdzCCAR2gAwIBAgIUO1xQ\n-----END CERTIFICATE-----\n",
};

function answer(method, segments, query, body) {
  const path = `/${segments.join("/")}`;
  if (path === "/api/ext/setup")
    return method === "GET" ? [200, { needed: users.size === 0 }] : signIn(body.user, body.password, true);
  if (path === "/api/ext/session") {
    if (method === "POST") return signIn(body.user, body.password, false);
    if (method === "DELETE") {
      session = null;
      return [204];
    }
    if (!session) throw new Refused(401, "nobody is signed in");
    return [200, session];
  }
  if (path === "/api/ext/health") return [200, { status: "ok", store: "ok" }];
  if (path === "/openapi.json") return [200, { info: { title: "Lineside central", version: "0.1.0" } }];
  if (!session) throw new Refused(401, "sign in first");
  if (path === "/api/ext/grid") return [200, grid(query)];
  if (path === "/api/ext/grid/counts") return [200, counts(query)];
  if (path === "/api/ext/overview") return [200, overview()];
  if (path === "/api/ext/connection") return [200, CONNECTION];
  if (path === "/api/ext/audit")
    return [
      200,
      {
        value: audit.filter(
          (row) =>
            (!query.get("who") || row.who === query.get("who")) &&
            (!query.get("path") || row.path.startsWith(query.get("path"))),
        ),
        nextBefore: null,
      },
    ];
  if (path === "/api/ext/roles")
    return [
      200,
      {
        value: Object.entries(ROLES).map(([id, displayName]) => ({
          id,
          displayName,
          isBuiltIn: true,
          isOfOrganization: false,
          permissions: permissionsOf(id),
          organization: "root",
        })),
      },
    ];
  if (segments[1] === "users" || path.startsWith("/api/ext/users")) return ofUsers(method, segments, body);
  if (segments[1] === "apiTokens") return ofTokens(method, segments[2]);
  if (segments[1] === "deploymentManifests") return ofManifests(method, segments[2], body);
  if (path === "/api/ext/routes/test") return [200, ROUTE_TEST];
  if (segments[2] === "deploymentManifests") return [200, rollout(segments[3], query)];
  if (segments[2] === "devices" && segments[4] === "deploymentManifest")
    return [200, preview(need(segments[3]))];
  if (segments[1] === "ext" && segments[2] === "devices") return ofExtDevice(segments.slice(3), query);
  if (segments[1] === "devices") return ofDevice(method, segments.slice(2), body);
  throw new Refused(404, `there is no path ${path}`);
}
function signIn(user, password, isFirst) {
  if (isFirst) users.set(user, { role: "administrator", password });
  const known = users.get(user);
  if (!known || known.password !== password) throw new Refused(401, "the user name or the password is wrong");
  session = {
    user: {
      id: user,
      name: user,
      role: known.role,
      roleName: ROLES[known.role],
      permissions: permissionsOf(known.role),
    },
    expiresAt: ago(-12 * 3600_000),
    csrf: null,
  };
  return [isFirst ? 201 : 200, session];
}
function ofUsers(method, segments, body) {
  const id = segments[1] === "ext" ? segments[3] : segments[2];
  if (!id)
    return [
      200,
      {
        value: [...users].map(([name, { role }]) => ({
          id: name,
          type: "email",
          email: name,
          roles: [{ role }],
        })),
      },
    ];
  if (method === "DELETE") {
    users.delete(id);
    return [204];
  }
  const old = users.get(id) ?? { password: "" };
  users.set(id, { role: body.roles?.[0].role ?? old.role, password: body.password ?? old.password });
  return [200, { id }];
}
const tokens = new Map([
  [
    "ci-deploy",
    { id: "ci-deploy", roles: [{ role: "operator" }], expiry: ago(-9e9), lastUsed: ago(320_000) },
  ],
]);
function ofTokens(method, id) {
  if (!id) return [200, { value: [...tokens.values()] }];
  if (method === "DELETE") {
    tokens.delete(id);
    return [204];
  }
  const made = { id, roles: [{ role: "operator" }], expiry: ago(-3e10) };
  tokens.set(id, made);
  return [
    200,
    { ...made, token: `SharedAccessSignature sr=central&sig=${randomUUID()}&skn=${id}&se=1811111111` },
  ];
}
const ROLLOUT_ORDER = ["failed", "outOfDate", "notDelivered", "applying", "running"];
function rollout(id, query) {
  if (!manifests.has(id)) throw new Refused(404, `there is no manifest ${id}`);
  const counts = Object.fromEntries(ROLLOUT_ORDER.map((name) => [name, 0]));
  const rows = [...devices.values()]
    .filter((row) => row.manifest?.id === id)
    .map((row, at) => {
      const isFailed = row.id === "gw-line-07";
      const isAway = row.state.connectivity !== "connected";
      const is = isFailed
        ? "failed"
        : !row.manifest.upToDate
          ? "outOfDate"
          : isAway
            ? "notDelivered"
            : at % 5 === 4
              ? "applying"
              : "running";
      counts[is] += 1;
      const reason = isFailed
        ? "vision-filter: ended with code 137, because memory ran out; attempt 14"
        : is === "applying"
          ? "images are being pulled"
          : null;
      return {
        gateway: row.id,
        displayName: row.displayName,
        state: is,
        reason,
        upToDate: row.manifest.upToDate,
        desiredVersion: 4,
        takenVersion: is === "notDelivered" ? 3 : 4,
        gatewayState: row.state,
      };
    })
    .sort((one, other) => ROLLOUT_ORDER.indexOf(one.state) - ROLLOUT_ORDER.indexOf(other.state));
  const value = rows.filter((row) => !query.get("state") || row.state === query.get("state"));
  return { counts, total: rows.length, value, nextCursor: null };
}

/** Something of each kind, whatever is asked. */
function preview(gateway) {
  const field = (name, from, to, replaces) => ({ field: name, from, to, replaces });
  const image = field(
    "settings.image",
    "registry.plant.example/vision-filter:2.4.0",
    "registry.plant.example/vision-filter:2.4.1",
    true,
  );
  const secret = (name) => field(name, null, null, true);
  const modules = [
    {
      module: "vision-filter",
      effect: "replace",
      fields: [image, secret("env.BATCH"), secret("settings.createOptions.HostConfig.Memory")],
      steps: ["pull", "replace"],
    },
    { module: "tool-wear", effect: "create", fields: [], steps: ["pull", "create", "start"] },
    {
      module: "label-feed",
      effect: "change",
      fields: [field("restartPolicy", "always", "on-failure", false)],
      steps: [],
    },
    { module: "old-bridge", effect: "remove", fields: [], steps: ["stop", "remove"] },
    { module: "spindle-bridge", effect: "leave", fields: [], steps: [] },
    { module: "opc-reader", effect: "leave", fields: [], steps: [] },
  ];
  const counts = { create: 1, replace: 1, change: 1, remove: 1, leave: 2, unknown: 0 };
  const routes = [
    { name: "upstream", from: "FROM /messages/* INTO $upstream", to: "FROM /* INTO $upstream" },
  ];
  const away =
    gateway.state.connectivity === "connected"
      ? []
      : ["The gateway is not connected: this is by its last report, and nothing happens until it is back."];
  const last =
    "Whether images can be pulled, and whether the gateway's own limits allow each module, is decided on the gateway.";
  return { counts, modules, routes, twins: ["tool-wear"], warnings: [], unknown: [...away, last] };
}

const ROUTE_TEST = {
  goesTo: [{ sink: "$upstream", route: "upstream", priority: null, timeToLiveSecs: null }],
  routes: [
    {
      name: "hot",
      sink: 'BrokeredEndpoint("/modules/vision-filter/inputs/hot")',
      verdict: "condition false",
      reason: "$body.temperature is 21.5",
    },
    { name: "upstream", sink: "$upstream", verdict: "matches", reason: "it has no condition" },
  ],
};

function ofManifests(method, id, body) {
  if (!id) return [200, { value: [...manifests.values()] }];
  if (method === "PUT" || method === "PATCH") return store(id, body, method);
  if (!manifests.has(id)) throw new Refused(404, `there is no manifest ${id}`);
  if (method === "DELETE") {
    manifests.delete(id);
    return [204];
  }
  return [200, manifests.get(id)];
}
function ofExtDevice([id, what, more, part], query) {
  const row = need(id);
  if (what === "modules" && part === "logs") return [200, log(row, more, query)];
  switch (what) {
    case "status":
      return [200, status(row)];
    case "why":
      return [200, why(row)];
    case "names":
      return [
        200,
        {
          value:
            row.lastTelemetryAt === null || row.kind === "gateway"
              ? []
              : [...Object.entries(sentValues(row)), ["state", "Running"]].map(([name, value]) => ({
                  module: null,
                  component: null,
                  name,
                  at: row.lastTelemetryAt,
                  enqueuedAt: row.lastTelemetryAt,
                  value,
                  isNumber: typeof value === "number",
                })),
        },
      ];
    case "series":
      return [200, series(id, query)];
    case "messages":
      return [
        200,
        {
          value:
            query.get("order") === "newest"
              ? [...row.messages].reverse().slice(0, 100)
              : row.messages.filter((one) => one.id > Number(query.get("after") ?? 0)).slice(0, 100),
        },
      ];
    case "commands":
      return [200, { value: row.commands }];
    case "losses":
      return more === "totals"
        ? [200, { byCause: row.kind === "gateway" ? { expired: 812 } : {}, value: [] }]
        : [
            200,
            {
              value:
                row.kind === "gateway"
                  ? [
                      {
                        id: 1,
                        gateway: id,
                        queue: "upstream",
                        cause: "expired",
                        count: 812,
                        from: ago(9e5),
                        until: ago(8e5),
                        received: ago(7e5),
                        firstSequence: 1,
                        lastSequence: 812,
                      },
                    ]
                  : [],
            },
          ];
    case "twin":
      return [200, twin(row, query.get("module"))];
    case "join":
      return [200, { line: "ls1.eyJ1IjoiY2VudHJhbC5wbGFudC5leGFtcGxlIiwiZCI6Imd3LWxpbmUtMDEifQ.9F3Q" }];
    default:
      throw new Refused(404, `there is no ${what} of a device`);
  }
}
const logLine = (time, level, text) => ({ time, level, stream: "stdout", text });
const LOG = [
  ...Array.from({ length: 60 }, (_, at) =>
    logLine(
      ago(400_000 - at * 5000),
      6,
      `batch ${4100 + at} of 8 frames, ${31 + (at % 7)} ms, queue ${at % 4}`,
    ),
  ),
  logLine(ago(62_000), 4, "frame queue is full, 3 frames were dropped"),
  logLine(
    ago(61_000),
    6,
    "loading model press.onnx, 214 MB, from https://models.plant.example/press.onnx?***redacted***",
  ),
  logLine(ago(60_000), 3, "cannot allocate 214 MB: memory limit of 256 MB reached"),
  logLine(ago(59_000), 6, "Killed"),
];
function log(row, module, query) {
  if (row.state.connectivity !== "connected")
    throw new Refused(404, `gateway \`${row.id}\` is not connected`, "DeviceNotConnected");
  if (module === "tool-wear")
    throw new Refused(404, `module \`${module}\` has no container`, "ModuleHasNoContainer");
  const pattern = new RegExp((query.get("regex") ?? "").replace("(?i)", ""), "i");
  const lines = LOG.filter((line) => pattern.test(line.text));
  return { lines: lines.slice(-Number(query.get("tail") ?? lines.length)) };
}
function ofModule(row, method, body) {
  const [status, command] = run(row, method, body);
  return [status, { ...command, module: "$edgeAgent", response: null }];
}
function ofDevice(method, [id, what, name, ...rest], body) {
  if (!what && method === "PUT") return registered(id, body);
  const row = need(id);
  if (!what) {
    if (method === "PATCH") return registered(id, body);
    if (method === "DELETE") {
      devices.delete(id);
      tell("state", { device: id, state: null });
      return [204];
    }
    return [200, device(row)];
  }
  if (what === "credentials")
    return [
      200,
      { idScope: CONNECTION.idScope, symmetricKey: { primaryKey: row.key, secondaryKey: row.key } },
    ];
  if (what === "properties" && method === "GET") return [200, properties(row)];
  if (what === "properties") {
    desire(row, body);
    return [202, properties(row)];
  }
  if (what === "commands") return run(row, name, body);
  if (what === "modules") return ofModule(row, rest.at(-1), body);
  if (what === "relationships" && method === "GET")
    return [
      200,
      { value: row.gateway ? [{ id: "behind", name: "behind", source: row.gateway, target: id }] : [] },
    ];
  if (what === "relationships") {
    const child = need(body?.target ?? id);
    child.gateway = method === "DELETE" ? null : id;
    return method === "DELETE" ? [204] : [200, {}];
  }
  if (what === "applyDeploymentManifest") {
    const one = manifests.get(body.id);
    row.manifest = { id: one.id, name: one.displayName, upToDate: true };
    return [200, {}];
  }
  throw new Refused(404, `there is no ${what} of a device`);
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const POLICY =
  "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'";
function file(path, response) {
  const name = existsSync(join(root, path)) && extname(path) ? path : "/index.html";
  response.writeHead(200, {
    "content-type": TYPES[extname(name)] ?? "application/octet-stream",
    "content-security-policy": POLICY,
  });
  response.end(readFileSync(join(root, name)));
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return chunks.length ? JSON.parse(Buffer.concat(chunks).toString() || "null") : null;
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://fixture");
  const segments = url.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  if (url.pathname === "/api/ext/events") {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const stream = { response, devices: url.searchParams.getAll("device") };
    response.write(": ping\n\n");
    streams.add(stream);
    request.on("close", () => streams.delete(stream));
    return;
  }
  if (!url.pathname.startsWith("/api/") && url.pathname !== "/openapi.json")
    return file(url.pathname, response);
  const body = await bodyOf(request);
  let status = 500;
  try {
    const [code, given] = answer(request.method, segments, url.searchParams, body);
    status = code;
    response.writeHead(code, { "content-type": "application/json" });
    response.end(given === undefined ? undefined : JSON.stringify(given));
  } catch (error) {
    status = error.status ?? 500;
    response.writeHead(status, { "content-type": "application/json" });
    response.end(
      JSON.stringify({
        error: { code: error.code ?? String(status), message: error.message, requestId: randomUUID() },
      }),
    );
  }
  if (request.method !== "GET")
    audit.unshift({
      id: audit.length + 1,
      at: ago(0),
      who: session?.user.name ?? body?.user ?? "nobody",
      kind: "change",
      method: request.method,
      path: url.pathname,
      status,
      address: "127.0.0.1",
      before: null,
      after: body?.password ? null : body,
    });
}).listen(PORT, "127.0.0.1", () => console.log(`fixture at http://127.0.0.1:${PORT}`));
