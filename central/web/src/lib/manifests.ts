// Manifests as the console reads them: names of modules, and what a change means before how it is written.

type Json = Record<string, unknown>;
const object = (value: unknown): Json =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};

function contentOf(data: unknown): Json {
  const of = object(data);
  return object(of.modulesContent ?? object(of.content).modulesContent ?? of);
}

function desiredOf(data: unknown, module: string): Json {
  return object(object(contentOf(data)[module])["properties.desired"]);
}

export function moduleNames(data: unknown): string[] {
  return Object.keys(object(desiredOf(data, "$edgeAgent").modules)).sort();
}

function routesOf(data: unknown): Record<string, string> {
  const routes = object(desiredOf(data, "$edgeHub").routes);
  return Object.fromEntries(
    Object.entries(routes).map(([name, route]) => [
      name,
      typeof route === "string" ? route : String(object(route).route ?? ""),
    ]),
  );
}

export type Change = { subject: string; says: string; from?: string; to?: string };

/** What a manifest does otherwise than another one: modules and routes by what they do, then the rest of `properties.desired`. */
export function changes(before: unknown, after: unknown): Change[] {
  return [...moduleChanges(before, after), ...routeChanges(before, after), ...twinChanges(before, after)];
}

function moduleChanges(before: unknown, after: unknown): Change[] {
  const [old, next] = [
    object(desiredOf(before, "$edgeAgent").modules),
    object(desiredOf(after, "$edgeAgent").modules),
  ];
  const found: Change[] = [];
  for (const name of union(old, next)) {
    if (!(name in old)) found.push({ subject: name, says: "Added", to: image(next[name]) });
    else if (!(name in next)) found.push({ subject: name, says: "Removed", from: image(old[name]) });
    else found.push(...ofModule(name, object(old[name]), object(next[name])));
  }
  return found;
}

const FIELDS: [string, string][] = [
  ["status", "Status"],
  ["restartPolicy", "Restart policy"],
  ["imagePullPolicy", "Image pull policy"],
  ["startupOrder", "Startup order"],
  ["version", "Version"],
];

function ofModule(name: string, old: Json, next: Json): Change[] {
  const found: Change[] = [];
  const changed = (says: string, from: unknown, to: unknown) => {
    if (written(from) !== written(to))
      found.push({ subject: name, says, from: written(from), to: written(to) });
  };
  changed("Image", image(old), image(next));
  for (const [field, says] of FIELDS) changed(says, old[field], next[field]);
  const [oldEnv, nextEnv] = [object(old.env), object(next.env)];
  for (const key of union(oldEnv, nextEnv))
    changed(key, object(oldEnv[key]).value, object(nextEnv[key]).value);
  const options = (module: Json) => {
    const given = object(module.settings).createOptions;
    // The same options are written as a text by some tools and as an object by others.
    if (typeof given !== "string") return given ?? {};
    try {
      return JSON.parse(given || "{}") as unknown;
    } catch {
      return given;
    }
  };
  changed("Create options", options(old), options(next));
  return found;
}

function routeChanges(before: unknown, after: unknown): Change[] {
  const [old, next] = [routesOf(before), routesOf(after)];
  return [...union(old, next)]
    .filter((name) => old[name] !== next[name])
    .map((name) => {
      const says = name in old ? (name in next ? "Changed" : "Removed") : "Added";
      return {
        subject: `Route ${name}`,
        says,
        ...(old[name] ? { from: old[name] } : {}),
        ...(next[name] ? { to: next[name] } : {}),
      };
    });
}

function twinChanges(before: unknown, after: unknown): Change[] {
  const [old, next] = [contentOf(before), contentOf(after)];
  const found: Change[] = [];
  for (const module of union(old, next)) {
    if (module === "$edgeAgent" || module === "$edgeHub") continue;
    const [from, to] = [desiredOf(before, module), desiredOf(after, module)];
    for (const key of union(from, to)) {
      if (written(from[key]) !== written(to[key])) {
        found.push({
          subject: module,
          says: `Desired ${key}`,
          from: written(from[key]),
          to: written(to[key]),
        });
      }
    }
  }
  return found;
}

function image(module: unknown): string {
  return String(object(object(module).settings).image ?? "");
}

function union(one: Json, other: Json): Set<string> {
  return new Set([...Object.keys(one), ...Object.keys(other)].sort());
}

/** A value on one line, the same for the same value. */
function written(value: unknown): string {
  if (value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(sorted(value));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sorted((value as Json)[key])]),
  );
}

/** The place in the text that central's message speaks of: `modulesContent.$edgeAgent…`, or null. */
export function placeOf(message: string, text: string): { from: number; to: number } | null {
  const path =
    /(?:^|[\s`“(])((?:data\.)?modulesContent(?:\.[^\s:`”),]+|\["[^"]+"\])*|\$?[\w-]+(?:\.[\w$*-]+)+)/.exec(
      message,
    )?.[1];
  if (!path) return null;
  const keys = path
    .replace(/^data\./, "")
    .replace("properties.desired", "properties·desired")
    .split(".")
    .map((key) => key.replace("·", "."));
  let at = 0;
  let found: { from: number; to: number } | null = null;
  for (const key of keys) {
    const quoted = JSON.stringify(key);
    const next = text.indexOf(quoted, at);
    if (next < 0) continue;
    at = next + quoted.length;
    found = { from: next, to: at };
  }
  if (!found) return null;
  // The value of the last key rather than its name.
  const value = /^\s*:\s*("(?:[^"\\]|\\.)*"|[\w.+-]+)/.exec(text.slice(found.to));
  if (!value?.[1]) return found;
  const start = found.to + value[0].length - value[1].length;
  return { from: start, to: found.to + value[0].length };
}

export const EMPTY_MANIFEST = {
  modulesContent: {
    $edgeAgent: {
      "properties.desired": {
        schemaVersion: "1.1",
        runtime: { type: "docker", settings: { minDockerVersion: "v1.25" } },
        systemModules: {},
        modules: {},
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
};
