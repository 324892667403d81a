import { expect, test } from "vitest";
import { grouped } from "../src/lib/grouping";
import type { GridRow, State } from "../src/lib/types";

function row(id: string, gateway: string | null, state: Partial<State> = {}): GridRow {
  return {
    id,
    displayName: id,
    kind: "device",
    template: null,
    gateway,
    organization: "root",
    lastSeen: null,
    lastTelemetryAt: null,
    manifest: null,
    children: 0,
    state: {
      connectivity: "unknown",
      since: null,
      lifecycle: "Provisioned",
      verdict: "unknown",
      reason: gateway && `${gateway} is down`,
      modulesWanted: null,
      modulesRunning: null,
      ...state,
    },
  };
}
const shape = (rows: GridRow[], open: string[] = []) =>
  grouped(rows, new Set(open)).map((line) =>
    line.kind === "row" ? line.row.id : `${line.gateway}:${line.rows.length}`,
  );

test("three devices that one gateway hides are one line, where the first of them stood", () => {
  expect(shape([row("a", null), row("b", "gw"), row("c", null), row("d", "gw"), row("e", "gw")])).toEqual([
    "a",
    "gw:3",
    "c",
  ]);
});

test("an open group shows its devices below it", () => {
  expect(shape([row("b", "gw"), row("d", "gw"), row("e", "gw")], ["gw"])).toEqual(["gw:3", "b", "d", "e"]);
});

test("two devices stay rows of their own", () => {
  expect(shape([row("b", "gw"), row("d", "gw")])).toEqual(["b", "d"]);
});

test("a device with a cause of its own is not hidden with its neighbours", () => {
  const offline = row("x", "gw", { verdict: "offline", reason: "wrong key" });
  const never = row("y", "gw", { connectivity: "never" });
  expect(shape([offline, never, row("b", "gw"), row("c", "gw"), row("d", "gw")])).toEqual(["x", "y", "gw:3"]);
});

test("two gateways that are down are two lines", () => {
  const of = (gateway: string) => ["1", "2", "3"].map((at) => row(gateway + at, gateway));
  expect(shape([...of("gw-a"), ...of("gw-b")])).toEqual(["gw-a:3", "gw-b:3"]);
});
