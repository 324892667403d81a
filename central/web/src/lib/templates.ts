// Device templates: documents as central and IoT Central write them, DTDL files as they are found elsewhere, and what a model says in words.

import { devicePath, extDevicePath, get, patch, post, put, request } from "./api";
import type { Write } from "./curl";
import { forEach } from "./devices";
import type {
  Capability,
  GridPage,
  Template,
  TemplateList,
  TemplatePreview,
  TemplateSchema,
  TemplateView,
} from "./types";

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export const templatePath = (id: string) => `/api/deviceTemplates/${encodeURIComponent(id)}`;
export const templateViewPath = (id: string) => `/api/ext/deviceTemplates/${encodeURIComponent(id)}`;

export const listTemplates = (search: string, signal?: AbortSignal) =>
  get<TemplateList>("/api/ext/deviceTemplates", { search: search || null }, signal);
export const viewTemplate = (id: string, signal?: AbortSignal) =>
  get<TemplateView>(templateViewPath(id), {}, signal);
export const getTemplate = (id: string, signal?: AbortSignal) => get<Template>(templatePath(id), {}, signal);
export const storeTemplate = (id: string, document: unknown, etag?: string) =>
  put<Template>(templatePath(id), document, etag);
export const createTemplate = (id: string, document: unknown) =>
  request<Template>("PUT", templatePath(id), { body: document, isNew: true });
export const previewTemplate = (id: string, body: unknown, signal?: AbortSignal) =>
  request<TemplatePreview>("POST", `${templateViewPath(id)}/preview`, {
    body,
    ...(signal ? { signal } : {}),
  });
export const makeTemplate = (device: string) =>
  post<{ template: Template; skipped: { component?: string; name: string; why: string }[] }>(
    extDevicePath(device, "/template"),
    {},
  );

export function assignWrite(device: string, template: string | null): Write {
  return { method: "PATCH", path: devicePath(device), body: { template } };
}
export const assignTemplate = (device: string, template: string | null) =>
  patch(devicePath(device), { template });

const MIGRATE_PAGE = 500;

/** Gives every device of one template another one; gives what failed. */
export async function migrateAll(from: string, to: string, onProgress: (done: number) => void) {
  const failed: { id: string; error: unknown }[] = [];
  let cursor: string | null = null;
  let before = 0;
  do {
    const page: GridPage = await get<GridPage>("/api/ext/grid", {
      template: from,
      sort: "id",
      limit: MIGRATE_PAGE,
      cursor,
    });
    const ids = page.value.map((row) => row.id);
    const left = await forEach(
      ids,
      (id) => assignTemplate(id, to),
      (done) => onProgress(before + done),
    );
    failed.push(...left);
    before += ids.length;
    cursor = page.nextCursor;
  } while (cursor);
  return failed;
}

/** The version behind the semicolon, 0 for what is no DTMI. */
export function versionOf(id: string): number {
  return Number(/;(\d{1,9})$/.exec(id)?.[1] ?? 0);
}

/** The id of the version behind all of these. */
export function nextVersion(id: string, taken: string[]): string {
  const highest = Math.max(versionOf(id), ...taken.map(versionOf));
  return `${id.replace(/;\d+$/, "")};${highest + 1}`;
}

/** What people edit: the document without what central keeps of it. */
export function editable(template: Template): string {
  const { etag: _etag, ...document } = template as Template & Json;
  return JSON.stringify(document, null, 2);
}

export const TYPES = {
  DeviceModel: "IoT device",
  EdgeModel: "Azure IoT Edge",
  GatewayModel: "Gateway",
} as const;

export function typeWord(types: string[]): string {
  const found = Object.entries(TYPES).find(([type]) => types.includes(type));
  return found ? found[1] : types.join(", ");
}

export type Read = { id: string; document: Json; wrong: null } | { wrong: string };

/**
 * A template of what a file holds: a template of IoT Central or central, one interface in DTDL, or several that refer to each other.
 * What the model must be is for central to say.
 */
export function templateOf(text: string): Read {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (caught) {
    return { wrong: caught instanceof Error ? caught.message : "This is no JSON." };
  }
  if (Array.isArray(value)) {
    const interfaces = value.filter(isObject);
    if (interfaces.length === 0) return { wrong: "The list has no interface." };
    // An export of IoT Central's page of templates is a list of one.
    const [first] = interfaces;
    if (interfaces.length === 1 && first) return ofObject(first);
    return ofModel(inlined(interfaces));
  }
  return isObject(value) ? ofObject(value) : { wrong: "A template is a JSON object." };
}

function ofObject(value: Json): Read {
  if (!("capabilityModel" in value)) return ofModel(value);
  const { etag: _etag, ...document } = value;
  const id = document["@id"];
  if (typeof id !== "string")
    return { wrong: "“@id” is missing: write a DTMI such as dtmi:contoso:press;1." };
  return { id, document: { "@type": ["ModelDefinition", "DeviceModel"], ...document }, wrong: null };
}

function ofModel(model: Json): Read {
  const id = model["@id"];
  if (typeof id !== "string" || !("@type" in model))
    return { wrong: "This is neither a template (with “capabilityModel”) nor an interface in DTDL." };
  const document = {
    "@id": id,
    "@type": ["ModelDefinition", "DeviceModel"],
    displayName: localized(model.displayName) ?? id,
    capabilityModel: model,
  };
  return { id, document, wrong: null };
}

function localized(value: unknown): string | null {
  if (typeof value === "string" && value) return value;
  if (!isObject(value)) return null;
  const [first] = [value.en, ...Object.values(value)].filter((text) => typeof text === "string");
  return typeof first === "string" && first ? first : null;
}

/** Interfaces that refer to each other as one document: each stands where it is first referred to, as IoT Central writes them. */
export function inlined(interfaces: Json[]): Json {
  const byId = new Map(interfaces.map((one) => [one["@id"], one]));
  const referred = new Set(interfaces.flatMap((one) => references(one)));
  const root = interfaces.find((one) => !referred.has(one["@id"])) ?? (interfaces[0] as Json);
  const placed = new Set<unknown>([root["@id"]]);
  const place = (reference: unknown): unknown => {
    if (typeof reference !== "string" || placed.has(reference)) return reference;
    const found = byId.get(reference);
    if (!found) return reference;
    placed.add(reference);
    return filled(found);
  };
  const filled = (one: Json): Json => {
    const next: Json = { ...one };
    if ("extends" in one)
      next.extends = Array.isArray(one.extends) ? one.extends.map(place) : place(one.extends);
    if (Array.isArray(one.contents)) {
      next.contents = one.contents.map((content) =>
        isObject(content) && isComponent(content) ? { ...content, schema: place(content.schema) } : content,
      );
    }
    return next;
  };
  return filled(root);
}

function isComponent(content: Json): boolean {
  return [content["@type"]].flat().includes("Component");
}

function references(one: Json): unknown[] {
  const contents = Array.isArray(one.contents) ? one.contents.filter(isObject) : [];
  return [[one.extends ?? []].flat(), contents.filter(isComponent).map((content) => content.schema)].flat();
}

/** Where the value of a path such as `contents[2].schema` stands in a JSON text; the nearest that is there. */
export function placeOfPath(text: string, path: string): { from: number; to: number } | null {
  const keys = [...path.matchAll(/\[(\d+)\]|([^.[\]]+)/g)].map(([, index, name]) =>
    index ? Number(index) : String(name),
  );
  let at = 0;
  let found: { from: number; to: number } | null = null;
  const space = () => {
    while (/\s/.test(text[at] ?? "")) at += 1;
  };
  const string = () => {
    const start = at;
    at += 1;
    while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    at += 1;
    return text.slice(start, at);
  };
  // Walks over a value; along `keys` it goes in, and elsewhere it passes by.
  const value = (left: (string | number)[] | null) => {
    space();
    const from = at;
    const open = text[at];
    if (open === "{" || open === "[") {
      const close = open === "{" ? "}" : "]";
      at += 1;
      for (let index = 0; at < text.length; index += 1) {
        space();
        if (text[at] === close) break;
        let key: string | number = index;
        if (open === "{") {
          const quoted = string();
          key = JSON.parse(quoted) as string;
          space();
          at += 1;
        }
        value(left && left[0] === key ? left.slice(1) : null);
        space();
        if (text[at] === ",") at += 1;
      }
      at += 1;
    } else if (open === '"') string();
    else while (at < text.length && !/[\s,\]}]/.test(text[at] ?? "")) at += 1;
    // The innermost one on the way ends first.
    if (left && found === null) {
      const line = text.indexOf("\n", from);
      found = { from, to: Math.min(at, line < 0 ? at : line) };
    }
  };
  try {
    value(keys);
  } catch {
    // No JSON up to there.
  }
  return found;
}

/** `enum: Off, Running`, `object: low, high`, `array of double`. */
export function schemaWord(schema: TemplateSchema | null | undefined): string {
  if (!schema) return "";
  const named = (items: { name: string; displayName?: string | null }[]) =>
    items.map((item) => item.displayName ?? item.name).join(", ");
  switch (schema.kind) {
    case "enum":
      return `enum: ${named(schema.values ?? [])}`;
    case "object":
      return `object: ${named(schema.fields ?? [])}`;
    case "array":
      return `array of ${schemaWord(schema.element)}`;
    case "map":
      return `map of ${schemaWord(schema.element)}`;
    default:
      return schema.kind;
  }
}

export const KIND_WORDS: Record<Capability["kind"], string> = {
  telemetry: "Telemetry",
  property: "Property",
  cloudProperty: "Cloud property",
  command: "Command",
  component: "Component",
  relationship: "Relationship",
};

const UNITS: Record<string, string> = {
  degreeCelsius: "°C",
  degreeFahrenheit: "°F",
  kelvin: "K",
  percent: "%",
  bar: "bar",
  millibar: "mbar",
  kilopascal: "kPa",
  pascal: "Pa",
  volt: "V",
  ampere: "A",
  watt: "W",
  kilowatt: "kW",
  kilowattHour: "kWh",
  hertz: "Hz",
  metre: "m",
  millimetre: "mm",
  metrePerSecond: "m/s",
  newton: "N",
  kilogram: "kg",
  second: "s",
  minute: "min",
  hour: "h",
  revolutionPerMinute: "rpm",
  litre: "l",
};

/** `°C` of `degreeCelsius`; what has no sign that everybody knows stays a word. */
export function unitWord(unit: string | null | undefined): string {
  return unit ? (UNITS[unit] ?? unit) : "";
}

/** The start of a template that is written by hand. */
export function emptyTemplate(id: string, displayName: string): Json {
  const [path, version] = id.split(";");
  return {
    "@id": id,
    "@type": ["ModelDefinition", "DeviceModel"],
    displayName,
    capabilityModel: {
      "@context": ["dtmi:iotcentral:context;2", "dtmi:dtdl:context;2"],
      "@id": `${path}:model;${version}`,
      "@type": "Interface",
      displayName,
      contents: [
        {
          "@type": ["Telemetry", "Temperature"],
          name: "temperature",
          schema: "double",
          unit: "degreeCelsius",
        },
      ],
    },
  };
}

/** `press-1.json` of `dtmi:plant:press;1`. */
export function fileName(id: string): string {
  return `${id.replace(/^dtmi:/, "").replaceAll(/[^A-Za-z0-9]+/g, "-")}.json`;
}
