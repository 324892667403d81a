import { expect, test } from "vitest";
import { aggregated, choices, fills, generated, moved, summaryOf, withNumber } from "../src/lib/tiles";
import type { Capability, Series, TemplateInterface } from "../src/lib/types";

const capability = (name: string, kind: string, schema: string) =>
  ({ name, kind, schema: { kind: schema } }) as Capability;
const interfaces = [
  {
    component: null,
    capabilities: [capability("p", "telemetry", "double"), capability("limit", "property", "double")],
  },
  { component: "motor", capabilities: [capability("mode", "telemetry", "enum")] },
] as TemplateInterface[];

test("an overview begins with each value that is sent and a chart of each number", () => {
  expect(choices(interfaces).map((one) => one.capability.name)).toEqual(["p", "mode"]);
  expect(generated(interfaces)).toEqual([
    { kind: "lastValue", name: "p" },
    { kind: "state", name: "mode", component: "motor" },
    { kind: "chart", name: "p" },
  ]);
});

test("a tile is moved by one and stays within the list", () => {
  expect(moved(["a", "b", "c"], 2, 1)).toEqual(["a", "c", "b"]);
  expect(moved(["a", "b"], 0, -1)).toEqual(["a", "b"]);
});

test("a KPI is exact over buckets of different size, and follows what comes", () => {
  const series = { name: "p", t: [0, 1], min: [1, 8], avg: [2, 8], max: [3, 8], last: [3, 8], count: [3, 1] };
  const summary = summaryOf(series as Series);
  const of = (by: "mean" | "min" | "max") => aggregated(withNumber(summary, 6), by);
  expect(aggregated(summary, "mean")).toBe(3.5);
  expect([of("mean"), of("min"), of("max")]).toEqual([4, 1, 8]);
  expect(aggregated(summaryOf(undefined), "max")).toBeNull();
});

test("rows of tiles have no hole", () => {
  // Three small tiles, a chart that does not fit beside them, and another one.
  expect(fills([3, 3, 3, 6, 6])).toEqual([0, 0, 0, 3, 0, 0]);
  expect(fills([3])).toEqual([0, 9]);
  expect(fills([6, 12])).toEqual([0, 6, 0]);
  expect(fills([])).toEqual([0]);
});
