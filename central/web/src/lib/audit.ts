// A row of the audit log as a sentence: what a person did, not which path was asked for.

import type { AuditRow, OverviewChange } from "./types";

type Row = AuditRow | OverviewChange;

const VERBS: Record<string, string> = { PUT: "wrote", PATCH: "changed", POST: "added", DELETE: "deleted" };

/** `blocked press-04` of a row; `changed /api/…` where nothing better is known. */
export function auditSentence(row: Row): string {
  const own = ofKind(row);
  if (own) return own + outcome(row);
  const path = row.path ?? "";
  const segments = path.split("?")[0]?.split("/").filter(Boolean).map(decodeURIComponentSafe) ?? [];
  const at = segments.indexOf("devices");
  const sentence =
    at >= 0 && segments[at + 1] ? ofDevice(row, segments.slice(at + 1)) : ofThing(row, segments);
  return (sentence ?? `${VERBS[row.method ?? ""] ?? row.kind} ${path}`.trim()) + outcome(row);
}

/** Who asked; a try to sign in has no name when it gave none. */
export function whoOf(row: { who: string }): string {
  return row.who || "somebody";
}

function ofKind(row: Row): string | null {
  switch (row.kind) {
    case "signIn":
      return "signed in";
    case "signOut":
      return "signed out";
    case "setup":
      return "set up central";
    case "refused":
      return row.path?.startsWith("/api/ext/session") || row.path === null ? "was refused at sign-in" : null;
    default:
      return null;
  }
}

function ofDevice(row: Row, [id, what, name, ...rest]: string[]): string | null {
  if (!what) {
    if (row.method === "DELETE") return `deleted ${id}`;
    const [before, after] = [enabledOf(row, "before"), enabledOf(row, "after")];
    if (after === false && before !== false) return `blocked ${id}`;
    if (after === true && before === false) return `unblocked ${id}`;
    return row.kind === "created" ? `added ${id}` : `changed ${id}`;
  }
  if (what === "approve") return `approved ${id}`;
  if (what === "reject") return `rejected ${id}`;
  if (what === "commands") return `ran ${name} on ${id}`;
  if (what === "properties") return `wrote properties of ${id}`;
  if (what === "applyDeploymentManifest") return `assigned a manifest to ${id}`;
  if (what === "relationships")
    return row.method === "DELETE" ? `detached a device at ${id}` : `attached a device at ${id}`;
  if (what === "join") return `took the line that joins ${id}`;
  if (what === "attestation") return `changed how ${id} proves itself`;
  if (what === "modules" && rest[0] === "commands") return `ran ${rest[1]} on ${id}/${name}`;
  if (what === "modules" && rest[0] === "logs") return `read the log of ${id}/${name}`;
  if (what === "modules" && rest[0] === "properties") return `wrote properties of ${id}/${name}`;
  return null;
}

function ofThing(row: Row, segments: string[]): string | null {
  const [, first, id] = segments;
  const verb = VERBS[row.method ?? ""] ?? "changed";
  if (first === "deploymentManifests") return `${verb} manifest ${id}`;
  if (first === "apiTokens") return row.method === "DELETE" ? `revoked token ${id}` : `made token ${id}`;
  if (first === "users") return `${verb} user ${id}`;
  if (first === "enrollmentGroups") return `${verb} enrolment group ${id}`;
  if (first === "ext" && segments[2] === "session")
    return row.method === "DELETE"
      ? "signed out"
      : (row.status ?? 200) < 400
        ? "signed in"
        : "was refused at sign-in";
  if (first === "ext" && segments[2] === "enrollmentGroups")
    return `changed how enrolment group ${segments[3]} approves`;
  if (first === "ext" && segments[2] === "approvals") return "decided about devices that wait";
  if (first === "ext" && segments[2] === "setup") return "set up central";
  if (first === "ext" && segments[2] === "users") return `set a password of user ${segments[3]}`;
  return null;
}

/** Whether it was blocked before or after; undefined where the row does not tell. */
function enabledOf(row: Row, side: "before" | "after"): boolean | undefined {
  const body = side in row ? (row as AuditRow)[side] : null;
  return (body as { enabled?: boolean } | null)?.enabled;
}

function outcome(row: Row): string {
  const isRefused = row.status !== null && row.status >= 400 && ofKind(row) === null;
  return isRefused ? `, refused with ${row.status}` : "";
}

function decodeURIComponentSafe(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
