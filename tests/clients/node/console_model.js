// Forms that a template's model makes: properties by their schemas, cloud properties, and a command's request.
"use strict";
const fs = require("fs");
const { api, given, inBrowser, said, signIn } = require("./console_browser");
const { Device, withKey } = require("./console_device");

const VERSION = "api-version=2022-10-31-preview";
const PRESS = "dtmi:plant:press;1";

function template() {
  const mode = { "@type": "Enum", valueSchema: "integer", enumValues: [{ name: "eco", displayName: "Economy", enumValue: 1 }, { name: "full", enumValue: 2 }] };
  const range = { "@type": "Object", fields: [{ name: "low", schema: "double" }, { name: "high", schema: "double" }] };
  const contents = [
    { "@type": ["Telemetry", "Pressure"], name: "pressure", displayName: "System pressure", schema: "double", unit: "bar", decimalPlaces: 1 },
    { "@type": ["Telemetry", "State"], name: "phase", schema: mode },
    { "@type": ["Property", "Pressure"], name: "limit", displayName: "Pressure limit", schema: "integer", unit: "bar", writable: true, maxValue: 300 },
    { "@type": "Property", name: "mode", schema: mode, writable: true },
    { "@type": "Property", name: "range", schema: range, writable: true },
    { "@type": "Property", name: "serial", schema: "string" },
    { "@type": ["Property", "Cloud"], name: "owner", schema: "string" },
    { "@type": "Command", name: "openValve", request: { name: "percent", schema: "integer" } },
    { "@type": "Component", name: "motor", schema: { "@id": "dtmi:plant:motor;1", "@type": "Interface", contents: [{ "@type": "Property", name: "enabled", schema: "boolean", writable: true }] } },
  ];
  return { "@type": ["ModelDefinition", "DeviceModel"], displayName: "Press", capabilityModel: { "@id": "dtmi:plant:press:model;1", "@type": "Interface", contents } };
}

async function properties(page) {
  await page.goto(`${given.base}/devices/press-1/properties`);
  const row = (name) => page.locator(`[data-property="${name}"]`);
  const edit = async (name, title) => {
    await row(name).getByRole("button", { name: new RegExp(`edit ${name.split(".").at(-1)}$`) }).click();
    return page.getByRole("dialog", { name: title });
  };
  await row("serial").getByText("read-only").waitFor();
  let dialog = await edit("limit", "Edit Pressure limit");
  const limit = dialog.getByRole("spinbutton", { name: /Pressure limit/ });
  await limit.fill("250");
  await dialog.getByRole("button", { name: "Save" }).click();
  await row("limit").getByText("250", { exact: true }).waitFor();
  await row("limit").getByText("Pending").waitFor();
  dialog = await edit("mode", "Edit Mode");
  await dialog.getByLabel("Mode").selectOption({ label: "Economy" });
  await dialog.getByRole("button", { name: "Save" }).click();
  await row("mode").getByText("1", { exact: true }).waitFor();
  dialog = await edit("range", "Edit Range");
  await dialog.getByLabel("Low").fill("1.5");
  await dialog.getByLabel("High").fill("9");
  await dialog.getByRole("button", { name: "Save" }).click();
  await row("range").getByText('{"high":9,"low":1.5}').waitFor();
  dialog = await edit("motor.enabled", "Edit Enabled");
  await dialog.getByLabel("Enabled").selectOption("true");
  await dialog.getByRole("button", { name: "Save" }).click();
  await row("motor.enabled").getByText("true").waitFor();
  said("each property has the field of its schema: a number with its unit, a choice, an object, one of a component");
  dialog = await edit("owner", "Edit Owner");
  await dialog.getByLabel("Owner").fill("Ann");
  await dialog.getByRole("button", { name: "Save" }).click();
  await row("owner").getByText("Ann").waitFor();
  const twin = await api(page, "GET", "/api/ext/devices/press-1/twin");
  if ("owner" in twin.desired || twin.desired.limit !== 250 || twin.desired.motor.enabled !== true) throw new Error(JSON.stringify(twin));
  said("a cloud property is kept by central and is not in the twin");
  await page.getByRole("button", { name: "Add a property" }).click();
  dialog = page.getByRole("dialog", { name: "Add a property" });
  await dialog.getByLabel("Name").fill("mode");
  await dialog.getByLabel("Desired value").fill("7");
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByText(/mode: found 7; write one of 1, 2/).waitFor();
  await dialog.getByLabel("Name").fill("note");
  await dialog.getByRole("button", { name: "Save" }).click();
  await row("note").getByText("7", { exact: true }).waitFor();
  said("a value that does not fit is refused with the field; a name that the template lacks can be added");
}

async function command(page) {
  await page.goto(`${given.base}/devices/press-1/commands`);
  await page.getByLabel("Command").selectOption("openValve");
  const run = page.getByRole("button", { name: "Run", exact: true });
  if (await run.isEnabled()) throw new Error("a command runs without its request");
  await page.getByRole("spinbutton", { name: "Percent" }).fill("40");
  await page.getByLabel("If it is offline").selectOption("86400");
  await run.click();
  await page.locator(".answer").getByText("Waiting").waitFor();
  const { value } = await api(page, "GET", `/api/devices/press-1/commands/openValve?${VERSION}`);
  if (value[0].request !== 40) throw new Error(JSON.stringify(value[0]));
  said("a command's request is a form of its schema");
}

/** Two values of a device, arranged on its template's page. */
async function overview(page) {
  const { symmetricKey } = await api(page, "GET", `/api/devices/press-1/credentials?${VERSION}`);
  const how = { ...given.device, hostname: given.hostname, ca: fs.readFileSync(given.ca) };
  const device = await Device.open(withKey(how, "press-1", symmetricKey.primaryKey));
  await device.send({ pressure: 180.25, phase: 1 });
  await page.goto(`${given.base}/devices/press-1`);
  const tile = page.locator('[data-name="pressure"]');
  await tile.getByRole("heading", { name: "System pressure" }).waitFor();
  await tile.getByText("180.3").waitFor();
  await tile.getByText("bar").waitFor();
  await page.locator('[data-name="phase"]').getByText("Economy").waitFor();
  said("an overview has the names, units, digits and enum names of the template");

  await page.goto(`${given.base}/templates/${encodeURIComponent(PRESS)}/overview`);
  await page.getByRole("button", { name: "Begin with that" }).click();
  await page.locator('[data-tile="lastValue pressure"]').getByLabel("How System pressure is shown").selectOption({ label: "KPI of the range" });
  const kpi = page.locator('[data-tile="kpi pressure"]');
  await kpi.getByLabel("Which number of System pressure").selectOption({ label: "Greatest" });
  await kpi.getByLabel("Title of System pressure").fill("Peak");
  await page.getByRole("button", { name: "Move Phase up" }).click();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("The overview is arranged.").waitFor();
  await page.getByRole("link", { name: "See it on Press 1" }).click();
  const peak = page.locator('[data-kpi="pressure"]');
  await peak.getByRole("heading", { name: "Peak" }).waitFor();
  await device.send({ pressure: 191 });
  await peak.getByText("191.0").waitFor();
  await page.getByRole("img", { name: /System pressure over time/ }).waitFor();
  const order = await page.locator("[data-name], [data-kpi], [data-chart]").evaluateAll((all) => all.map((one) => Object.values(one.dataset).join()));
  if (order.join() !== "phase,pressure,pressure") throw new Error(`tiles: ${order.join()}`);
  await device.end();
  said("tiles are arranged on the template's page, and each device's overview has them, live");
}

inBrowser("model", async (page) => {
  await signIn(page);
  await api(page, "PUT", `/api/deviceTemplates/${PRESS}?${VERSION}`, template());
  await api(page, "PUT", `/api/devices/press-1?${VERSION}`, { displayName: "Press 1", template: PRESS });
  await properties(page);
  await command(page);
  await overview(page);
});
