// Rows that one cause hides are one row. Devices behind a gateway that is down are Unknown for one reason; thirty of them in a list
// would hide the one that has a reason of its own.

import type { GridRow } from "./types";

export type Line =
  | { kind: "row"; row: GridRow; isInGroup: boolean }
  | {
      kind: "group";
      gateway: string;
      reason: string;
      since: string | null;
      rows: GridRow[];
      isOpen: boolean;
    };

/** Fewer than that are not worth a row of their own. */
const GROUP_MIN = 3;

function cause(row: GridRow): string | null {
  if (row.kind !== "device" || row.state.verdict !== "unknown" || !row.gateway || !row.state.reason)
    return null;
  return row.state.connectivity === "never" ? null : `${row.gateway}\n${row.state.reason}`;
}

/** The rows as lines. A group stands where its first row stood, and holds all loaded rows of its cause. */
export function grouped(rows: GridRow[], open: ReadonlySet<string>): Line[] {
  const members = new Map<string, GridRow[]>();
  for (const row of rows) {
    const key = cause(row);
    if (!key) continue;
    const group = members.get(key);
    if (group) group.push(row);
    else members.set(key, [row]);
  }
  const lines: Line[] = [];
  const placed = new Set<string>();
  for (const row of rows) {
    const key = cause(row);
    const group = key ? members.get(key) : undefined;
    if (!key || !group || group.length < GROUP_MIN) {
      lines.push({ kind: "row", row, isInGroup: false });
      continue;
    }
    if (placed.has(key)) continue;
    placed.add(key);
    const gateway = row.gateway ?? "";
    const isOpen = open.has(gateway);
    const since = row.state.since;
    lines.push({ kind: "group", gateway, reason: row.state.reason ?? "", since, rows: group, isOpen });
    if (isOpen)
      lines.push(...group.map((member) => ({ kind: "row" as const, row: member, isInGroup: true })));
  }
  return lines;
}
