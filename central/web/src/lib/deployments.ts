// What a manifest does to gateways: before it is assigned, and after.

import { extDevicePath, get, post } from "./api";
import type { Tone } from "./state";
import type { ModulePreview, Preview, Rollout, RolloutState, RouteTest } from "./types";

/** A stored manifest by its id, or one that is not stored. */
export type GivenManifest = { id: string } | { data: unknown };

export const previewOf = (gateway: string, manifest: GivenManifest) =>
  post<Preview>(extDevicePath(gateway, "/deploymentManifest/preview"), manifest);

export const rolloutPath = (manifest: string) =>
  `/api/ext/deploymentManifests/${encodeURIComponent(manifest)}/rollout`;

export const rolloutOf = (
  manifest: string,
  query: { state?: string | null; cursor?: string | null; limit?: number },
  signal?: AbortSignal,
) => get<Rollout>(rolloutPath(manifest), query, signal);

export const testRoutes = (manifest: GivenManifest, message: unknown, gateway: string | null) =>
  post<RouteTest>("/api/ext/routes/test", { ...manifest, message, ...(gateway ? { gateway } : {}) });

export type Shown = { tone: Tone; icon: string; word: string };

export const ROLLOUT_STATES: RolloutState[] = ["failed", "outOfDate", "notDelivered", "applying", "running"];
const ROLLOUT: Record<RolloutState, Shown> = {
  failed: { tone: "bad", icon: "s-bad", word: "Failed" },
  outOfDate: { tone: "warn", icon: "s-warn", word: "Out of date" },
  notDelivered: { tone: "unk", icon: "s-wait", word: "Not delivered" },
  applying: { tone: "info", icon: "s-run", word: "Applying" },
  running: { tone: "ok", icon: "s-ok", word: "Running" },
};
export const rolloutShown = (state: RolloutState): Shown => ROLLOUT[state];

/** `restartPolicy always to never`; a value that may be a secret is not told. */
export function fieldText({ field, from, to }: ModulePreview["fields"][number]): string {
  return from != null && to != null ? `${field} ${from || "none"} to ${to || "none"}` : field;
}

/** The modules of a preview by what becomes of them, those first that stop something. */
export function groupsOf(preview: Preview): { effect: string; modules: ModulePreview[] }[] {
  const order = ["replace", "remove", "create", "change", "unknown", "leave"];
  return order
    .map((effect) => ({
      effect,
      modules: preview.modules.filter((one) => one.effect === effect) as ModulePreview[],
    }))
    .filter((group) => group.modules.length > 0);
}

/** Whether assigning the manifest changes nothing on the gateway. */
export function isNothing(preview: Preview): boolean {
  const isLeft = preview.modules.every((one) => one.effect === "leave");
  return isLeft && preview.routes.length === 0 && preview.twins.length === 0;
}

/** One sentence for a preview: what stops, and what does not. */
export function summary(preview: Preview): string {
  if (isNothing(preview)) return "Nothing changes.";
  const words: [string, string][] = [
    ["replace", "replaced"],
    ["remove", "removed"],
    ["create", "created"],
    ["change", "changed in place"],
    ["unknown", "not known"],
    ["leave", "left alone"],
  ];
  const parts = words
    .map(([effect, word]) => [preview.counts[effect] ?? 0, word] as const)
    .filter(([count]) => count > 0)
    .map(([count, word]) => `${count} ${word}`);
  const routes = preview.routes.length;
  if (routes > 0) parts.push(`${routes} ${routes === 1 ? "route" : "routes"} changed`);
  return `${parts.join(", ")}.`;
}

/** What a route tester's fields say, as a message; or what is wrong with them. */
export function messageOfFields(fields: {
  from: string;
  output: string;
  topic: string;
  properties: string;
  body: string;
}): { message: unknown; wrong: string | null } {
  const message: Record<string, unknown> = { from: fields.from.trim() };
  if (!message.from) return { message, wrong: "From: write a device, or gateway/module." };
  if (fields.output.trim()) message.output = fields.output.trim();
  if (fields.topic.trim()) message.topic = fields.topic.trim();
  if (fields.properties.trim()) {
    const properties: Record<string, string> = {};
    for (const line of fields.properties.split("\n").filter((one) => one.trim())) {
      const at = line.indexOf("=");
      if (at < 1) return { message, wrong: `Properties: “${line.trim()}” is no name=value.` };
      properties[line.slice(0, at).trim()] = line.slice(at + 1).trim();
    }
    message.properties = properties;
  }
  if (fields.body.trim()) {
    try {
      message.body = JSON.parse(fields.body);
      // What is JSON says so, or its conditions would be undefined.
      message.systemProperties = { contentType: "application/json", contentEncoding: "utf-8" };
    } catch {
      message.body = fields.body;
    }
  }
  return { message, wrong: null };
}
