import { expect, test } from "vitest";
import { DeviceModel } from "../src/lib/model";
import { Naming } from "../src/lib/naming";
import type { Capability, TemplateInterface } from "../src/lib/types";

const capability = (name: string, more: object) =>
  ({
    kind: "telemetry",
    name,
    displayName: null,
    unit: null,
    extension: {},
    schema: { kind: "double" },
    ...more,
  }) as Capability;
const model = new DeviceModel([
  {
    component: null,
    capabilities: [
      capability("p", { displayName: "System pressure", unit: "bar", extension: { decimalPlaces: 1 } }),
      capability("mode", {
        schema: { kind: "enum", values: [{ name: "Idle", displayName: "At rest", value: 0 }] },
      }),
      capability("oilTemperature", { unit: "degreeCelsius" }),
    ],
  } as TemplateInterface,
  {
    component: "motor",
    capabilities: [capability("rpm", { extension: { displayUnit: "1/min" } })],
  } as TemplateInterface,
]);
const of = (name: string, component: string | null = null, module: string | null = null) => ({
  name,
  component,
  module,
});

test("a value has the name, the unit and the digits of its template, and an enum value its name", () => {
  const naming = new Naming(model);
  expect([naming.name(of("p")), naming.unit(of("p")), naming.value(of("p"), 182.44)]).toEqual([
    "System pressure",
    "bar",
    "182.4",
  ]);
  expect([naming.name(of("oilTemperature")), naming.unit(of("oilTemperature"))]).toEqual([
    "Oil temperature",
    "°C",
  ]);
  expect([naming.value(of("mode"), 0), naming.value(of("mode"), 7)]).toEqual(["At rest", "7"]);
  expect(naming.unit(of("rpm", "motor"))).toBe("1/min");
  // The model is the device's, and not that of a module of the same name.
  expect([naming.unit(of("p", null, "filter")), naming.name(of("p", null, "filter"))]).toEqual(["", "P"]);
  expect([new Naming(null).name(of("p")), new Naming(null).unit(of("p"))]).toEqual(["P", ""]);
});

test("values stand in the order of the template, and others behind them", () => {
  const names = new Naming(model).inOrder([
    of("x"),
    of("rpm", "motor"),
    of("a"),
    of("oilTemperature"),
    of("p"),
  ]);
  expect(names.map((one) => one.name)).toEqual(["p", "oilTemperature", "rpm", "x", "a"]);
});
