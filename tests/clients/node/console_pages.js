// Every page in both themes: axe finds no serious or critical fault. With `shots`, pictures of them go to that directory.
"use strict";
const fs = require("fs");
const path = require("path");
const { api, faultsOf, given, inBrowser, said, signIn } = require("./console_browser");
const { connectRefused, Device, enrol, withKey } = require("./console_device");

const VERSION = "api-version=2022-10-31-preview";

/** Name, address, and what is there when the page is complete. */
const PAGES = [
  ["overview", "/", (page) => page.locator('li[data-device="press-3"]').getByText("It signs with another key")],
  ["devices", "/devices", (page) => page.getByRole("link", { name: "Press 1", exact: true })],
  ["devices-none", "/devices?search=nothing-has-this-name", (page) => page.getByText("No device matches.")],
  ["new-device", "/devices?new=device", (page) => page.getByRole("dialog", { name: "New device" })],
  ["import", "/devices?do=import", (page) => page.getByRole("dialog", { name: "Import devices" })],
  ["export", "/devices?do=export", (page) => page.getByRole("dialog", { name: "Export devices" })],
  ["why", "/devices?why=press-3", (page) => page.getByRole("dialog", { name: /Why is press-3/ }).locator('[data-cause="wrong-key"]')],
  ["gateways", "/gateways", (page) => page.getByRole("link", { name: given.gatewayName })],
  ["device", "/devices/press-1", (page) => page.locator('[data-kpi="pressure"]')],
  ["raw-data", "/devices/press-1/raw", (page) => page.getByText('"pressure"').first()],
  ["properties", "/devices/press-1/properties", (page) => page.locator('[data-property="mode"]')],
  ["commands", "/devices/press-1/commands", (page) => page.getByRole("button", { name: "openValve", exact: true })],
  ["connect-qr", "/devices/press-2/connect?qr=connection", (page) => page.getByRole("img", { name: "QR code of the connection string" })],
  ["connect", "/devices/press-2/connect", (page) => page.getByLabel("the lines for mosquitto")],
  ["health", "/devices/press-3/health", (page) => page.getByRole("heading", { name: "Losses" })],
  ["gateway", () => `/gateways/${given.gateway}`, (page) => page.getByText("stored up to").or(page.getByText("no message stored"))],
  ["gateway-devices", () => `/gateways/${given.gateway}/devices`, (page) => page.getByText(/No device stands behind it|Device ID/).first()],
  ["gateway-deployment", () => `/gateways/${given.gateway}/deployment`, (page) => page.getByRole("heading", { name: "Assigned", exact: true })],
  ["gateway-modules", () => `/gateways/${given.gateway}/modules`, (page) => page.getByRole("button", { name: "Restart", exact: true })],
  ["gateway-logs-none", () => `/gateways/${given.gateway}/logs?module=vision`, (page) => page.getByText("vision has no container.")],
  ["gateway-restart", () => `/gateways/${given.gateway}/modules?restart=vision`, (page) => page.getByRole("dialog", { name: "Restart vision?" })],
  ["gateway-system", () => `/gateways/${given.gateway}/system`, (page) => page.getByRole("heading", { name: "System" })],
  ["gateway-connect", () => `/gateways/${given.gateway}/connect`, (page) => page.getByLabel("the line", { exact: true })],
  ["manifests", "/manifests", (page) => page.getByRole("link", { name: "Press line" })],
  ["manifest", "/manifests/line-press", (page) => page.locator(`tr[data-gateway="${given.gateway}"]`).getByText("Failed", { exact: true })],
  ["manifest-preview", "/manifests/line-press?side=preview", (page) => page.getByRole("region", { name: /^Preview for/ }).getByText(/decided on the gateway/)],
  ["manifest-routes", "/manifests/line-press?side=routes", testRoutes],
  ["gateway-join-qr", () => `/gateways/${given.gateway}/connect?qr=join`, (page) => page.getByRole("img", { name: "QR code of the join line" })],
  ["assign", "/manifests/line-press?do=assign", (page) => page.getByRole("dialog", { name: "Assign to gateways" }).getByText(given.gatewayName)],
  ["templates", "/templates", (page) => page.getByRole("link", { name: "Hydraulic press" })],
  ["template", "/templates/dtmi%3Aplant%3Ahydraulics%3B1", (page) => page.locator('[data-capability="oilTemperature"]')],
  ["template-overview", "/templates/dtmi%3Aplant%3Ahydraulics%3B1/overview", (page) => page.locator('[data-tile="kpi pressure"]')],
  ["template-edit", "/templates/dtmi%3Aplant%3Ahydraulics%3B1/edit", (page) => page.getByText("No capability changes.")],
  ["template-devices", "/templates/dtmi%3Aplant%3Ahydraulics%3B1/devices", (page) => page.getByRole("link", { name: "Press 3" })],
  ["template-new", "/templates?new=template", (page) => page.getByRole("dialog", { name: "New template" })],
  ["migrate", "/devices/press-1?do=migrate", (page) => page.getByRole("dialog", { name: "Migrate press-1" }).getByLabel("Template")],
  ["audit", "/audit", (page) => page.getByText("signed in").first()],
  ["users", "/administration/users", (page) => page.getByRole("row").filter({ hasText: given.user })],
  ["enrolment", "/administration/enrolment", (page) => page.locator('tr[data-group="line-5"]').getByText("Not verified")],
  ["enrolment-new", "/administration/enrolment?new=group", (page) => page.getByRole("dialog", { name: "New enrolment group" })],
  ["enrolment-group", "/administration/enrolment/line-4", (page) => page.getByRole("heading", { name: "Keys" })],
  ["enrolment-certificates", "/administration/enrolment/line-5", (page) => page.locator('section[data-entry="primary"]').getByText("Not verified")],
  ["devices-waiting", "/devices?verdict=waiting", (page) => page.getByRole("link", { name: "press-9", exact: true })],
  ["device-waiting", "/devices/press-9/health", (page) => page.locator('[data-cause="waiting-for-approval"]')],
  ["approve", "/devices/press-9?do=approve", (page) => page.getByRole("dialog", { name: "Approve press-9?" })],
  ["you", "/administration/you", (page) => page.getByRole("heading", { name: "This browser" })],
  ["about", "/administration/about", (page) => page.getByRole("heading", { name: "For programs" })],
  ["not-found", "/nowhere", (page) => page.getByRole("heading", { name: "There is no such page" })],
];

/** Fills in the route tester; gives what is there when it has answered. */
function testRoutes(page) {
  const answered = async () => {
    await page.getByLabel("From").fill("press-1");
    await page.getByRole("button", { name: "Test the routes" }).click();
    await page.getByRole("region", { name: "Where it goes" }).waitFor();
  };
  return { waitFor: answered };
}

/** What a press of this plant sends, keeps and does. */
function hydraulics() {
  const state = { "@type": "Enum", valueSchema: "string", enumValues: ["Running", "Setup", "Stopped"].map((name) => ({ name, enumValue: name })) };
  const contents = [
    { "@type": ["Telemetry", "Pressure"], name: "pressure", displayName: "System pressure", schema: "double", unit: "bar" },
    { "@type": ["Telemetry", "Temperature"], name: "oilTemperature", displayName: "Oil temperature", schema: "double", unit: "degreeCelsius", maxValue: 80 },
    { "@type": ["Telemetry", "State"], name: "state", schema: state },
    { "@type": "Property", name: "mode", schema: "string", writable: true },
    { "@type": "Property", name: "limit", displayName: "Pressure limit", schema: "double", writable: true },
    { "@type": ["Property", "Cloud"], name: "serviceContract", schema: "string" },
    { "@type": "Command", name: "openValve", durable: true, request: { name: "opening", schema: { "@type": "Object", fields: [{ name: "percent", schema: "integer" }] } } },
    { "@type": "Component", name: "motor", schema: { "@id": "dtmi:plant:motor;1", "@type": "Interface", contents: [{ "@type": "Telemetry", name: "rpm", schema: "integer" }] } },
  ];
  const capabilityModel = { "@id": "dtmi:plant:hydraulics:model;1", "@type": "Interface", displayName: "Hydraulic press", contents };
  return { "@type": ["ModelDefinition", "DeviceModel"], displayName: "Hydraulic press", description: "Presses of lines 1 to 4, model year 2024", capabilityModel };
}

async function fill(page) {
  const put = (address, body) => api(page, "PUT", `${address}?${VERSION}`, body);
  await put("/api/deviceTemplates/dtmi:plant:hydraulics;1", hydraulics());
  for (const number of [1, 2, 3]) await put(`/api/devices/press-${number}`, { displayName: `Press ${number}`, template: "dtmi:plant:hydraulics;1" });
  await put("/api/deploymentManifests/line-press", { displayName: "Press line", data: given.brokenManifest });
  await api(page, "POST", `/api/devices/${given.gateway}/applyDeploymentManifest?${VERSION}`, { id: "line-press" });
  const how = (id, key) => withKey({ ...given.device, hostname: given.hostname, ca: fs.readFileSync(given.ca) }, id, key);
  const { symmetricKey } = await api(page, "GET", `/api/devices/press-1/credentials?${VERSION}`);
  await connectRefused(how("press-3", symmetricKey.primaryKey));
  const group = await put("/api/enrollmentGroups/line-4", { displayName: "Presses of line 4", attestation: { type: "symmetricKey" } });
  await api(page, "PUT", "/api/ext/enrollmentGroups/line-4/approval", { autoApprove: false });
  for (const id of ["press-8", "press-9"]) await enrol({ ...given.device, ca: fs.readFileSync(given.ca), scope: group.idScope, groupKey: group.attestation.symmetricKey.primaryKey, id });
  await put("/api/enrollmentGroups/line-5", { displayName: "Lathes of line 5", gateways: [given.gateway], attestation: { type: "x509", x509: { signingCertificates: { primary: { certificate: fs.readFileSync(given.ca, "utf8") } } } } });
  const tiles = [{ kind: "kpi", name: "pressure", title: "Peak pressure", aggregate: "max" }, { kind: "lastValue", name: "pressure" }, { kind: "lastValue", name: "oilTemperature" }, { kind: "state", name: "state" }, { kind: "chart", name: "pressure" }, { kind: "chart", name: "oilTemperature" }];
  await api(page, "PUT", "/api/ext/deviceTemplates/dtmi:plant:hydraulics;1/overview", { tiles });
  const device = await Device.open(how("press-1", symmetricKey.primaryKey));
  for (let at = 0; at < 30; at += 1) await device.send({ pressure: 180 + 6 * Math.sin(at / 4), oilTemperature: 48 + at / 10, state: at % 9 === 8 ? "Setup" : "Running" });
  await api(page, "PATCH", `/api/devices/press-1/properties?${VERSION}`, { mode: "eco", limit: 210 });
  await api(page, "POST", `/api/devices/press-1/commands/openValve?${VERSION}`, { request: { percent: 40 } });
  return device;
}

async function look(page, theme) {
  const found = [];
  for (const [name, address, complete] of PAGES) {
    await page.goto(given.base + (typeof address === "function" ? address() : address));
    await complete(page).waitFor();
    // Fonts and layout stand; ages go on ticking.
    await page.evaluate(() => document.fonts.ready);
    for (const fault of await faultsOf(page)) found.push(`${name}, ${theme}: ${fault}`);
    if (given.shots) await page.screenshot({ path: path.join(given.shots, `${name}-${theme}.png`) });
  }
  return found;
}

inBrowser("pages", async (page, context) => {
  const found = [];
  await page.goto(given.base);
  await page.getByLabel("User name").waitFor();
  for (const theme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: theme });
    for (const fault of await faultsOf(page)) found.push(`sign-in, ${theme}: ${fault}`);
    if (given.shots) await page.screenshot({ path: path.join(given.shots, `sign-in-${theme}.png`) });
  }
  await signIn(page);
  const device = await fill(page);
  for (const theme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: theme });
    found.push(...(await look(page, theme)));
    said(`${theme}: ${PAGES.length} pages`);
  }
  await device.end();
  await context.clearCookies();
  if (found.length > 0) throw new Error(found.join("\n"));
});
