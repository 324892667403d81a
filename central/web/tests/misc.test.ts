import { expect, test } from "vitest";
import { curl, quoted } from "../src/lib/curl";
import { idError } from "../src/lib/devices";
import { bytes, label, measured, templateName } from "../src/lib/format";
import { parseRange } from "../src/lib/range";
import { stateShown } from "../src/lib/state";
import type { State } from "../src/lib/types";

test("a curl line survives whatever a name holds", () => {
  expect(quoted("a-b.c/d")).toBe("a-b.c/d");
  expect(quoted("it's $HOME `x`")).toBe(`'it'\\''s $HOME \`x\`'`);
  const line = curl({ method: "PATCH", path: "/api/devices/a%20b", body: { name: "it's" } }, "https://c");
  expect(line).toContain("curl -X PATCH 'https://c/api/devices/a%20b?api-version=2022-10-31-preview'");
  expect(line).toContain(`-d '{"name":"it'\\''s"}'`);
});

test("numbers keep the digits that matter", () => {
  expect([182.44, 0.00312, 4318, 1e21, -3.14259, 1234.56].map(measured)).toEqual([
    "182.4",
    "0.0031",
    "4,318",
    "1.000e+21",
    "-3.14",
    "1,234.6",
  ]);
  expect([0, 999, 1500, 38_000_000, 212e9].map((size) => Object.values(bytes(size)).join(" "))).toEqual([
    "0 B",
    "999 B",
    "1.5 kB",
    "38 MB",
    "212 GB",
  ]);
});

test("names are labels until a template names them", () => {
  expect(["systemPressure", "oil_temp", "RPM", "state", "HTTPStatus", "_"].map(label)).toEqual([
    "System pressure",
    "Oil temp",
    "RPM",
    "State",
    "HTTP status",
    "_",
  ]);
  expect(["dtmi:plant:pressHydraulics;3", "mine"].map(templateName)).toEqual(["Press hydraulics 3", "mine"]);
});

test("a range is what was typed, or nothing", () => {
  expect(parseRange("now-6h")?.ms).toBe(6 * 3600_000);
  expect(parseRange("now-90m")?.ms).toBe(90 * 60_000);
  expect(["", "6h", "now-0h", "now-x", "now-6y", "now--1h"].map(parseRange)).toEqual([
    null,
    null,
    null,
    null,
    null,
    null,
  ]);
});

test("an id is refused with its reason before central refuses it", () => {
  expect(idError("press-04_a.b")).toBe(null);
  expect(idError("press 04")).toMatch(/blanks/);
  expect(idError("a/b")).toMatch(/“\/”/);
  expect(idError("x".repeat(129))).toMatch(/129/);
});

test("Degraded says how many of the wanted modules do not run", () => {
  const state: State = {
    connectivity: "connected",
    since: null,
    lifecycle: "Provisioned",
    verdict: "degraded",
    reason: null,
    modulesWanted: 5,
    modulesRunning: 3,
  };
  expect(stateShown(state).word).toBe("Degraded 2/5");
  expect(stateShown({ ...state, modulesWanted: null }).word).toBe("Degraded");
  expect(stateShown({ ...state, verdict: "unknown" }).word).toBe("Unknown");
});
