// An operator's day in the browser, from the first run of central to a manifest on a gateway.
"use strict";
const fs = require("fs");
const { given, inBrowser, rewrite, said } = require("./console_browser");
const { connectRefused, Device, parseMosquitto } = require("./console_device");

const DEVICE = "press-4";

async function firstRun(page) {
  await page.goto(given.base);
  await page.getByRole("heading", { name: "Set up central" }).waitFor();
  const fill = async (code, again) => {
    await page.getByLabel("Set-up code").fill(code);
    await page.getByLabel("User name").fill(given.user);
    await page.getByLabel("Password", { exact: true }).fill(given.password);
    await page.getByLabel("Password again").fill(again);
    await page.getByRole("button", { name: /Create the administrator/ }).click();
  };
  await fill("wrong-code", "another password");
  await page.getByRole("alert").filter({ hasText: "The two passwords differ" }).waitFor();
  await fill("wrong-code", given.password);
  await page.getByRole("alert").filter({ hasText: /code/ }).waitFor();
  await fill(given.setupCode, given.password);
  await page.getByRole("navigation", { name: "Main" }).waitFor();
  said("the first administrator is made with the set-up code");
}

async function signInAgain(page) {
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("User name").fill(given.user);
  await page.getByLabel("Password").fill("not the password");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").filter({ hasText: /\S/ }).waitFor();
  await page.getByLabel("Password").fill(given.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("navigation", { name: "Main" }).waitFor();
  said("a wrong password is refused, the right one is taken");
}

async function addDevice(page) {
  await page.getByRole("link", { name: "Devices", exact: false }).first().click();
  await page.getByRole("button", { name: "New device" }).click();
  const dialog = page.getByRole("dialog", { name: "New device" });
  await dialog.getByLabel("Device ID").fill("press 4");
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.getByText(/No blanks/).waitFor();
  await dialog.getByLabel("Device ID").fill(DEVICE);
  await dialog.getByLabel(/^Name/).fill("Press 4");
  await dialog.getByRole("button", { name: "Create" }).click();
  await page.waitForURL(`**/devices/${DEVICE}/connect`);
  await page.getByText("Waiting for its first connection").waitFor();
  const line = await page.getByLabel("the lines for mosquitto").innerText();
  const text = await page.locator("code", { hasText: "SharedAccessKey=" }).first().innerText();
  if (!text.startsWith(`HostName=${given.hostname};DeviceId=${DEVICE};SharedAccessKey=`)) throw new Error(`connection string: ${text}`);
  said("a device is added, and its page has lines to paste");
  return line;
}

async function connectIt(page, how) {
  const device = await Device.open(how);
  await page.getByText("Connected", { exact: true }).waitFor();
  await page.getByRole("link", { name: "Overview" }).last().click();
  await page.getByText("It is connected and has sent nothing").waitFor();
  await device.send({ temperature: 21.5, state: "Running" });
  const tile = page.locator('[data-name="temperature"]');
  await tile.getByText("21.5", { exact: true }).waitFor();
  await page.locator('[data-name="state"]').getByText("Running").waitFor();
  await page.getByRole("img", { name: /Temperature over time/ }).waitFor();
  await device.send({ temperature: 22.75 });
  await tile.getByText("22.75", { exact: true }).waitFor();
  said("its first values are on its page without a reload, and the next one is too");
  await page.getByRole("link", { name: "Raw data" }).click();
  await page.getByText('{"temperature":22.75}').waitFor();
  await device.client.publishAsync(how.topic, "no json {", { qos: 1 });
  await page.getByText("not JSON").waitFor();
  await page.getByText("no json {").waitFor();
  said("raw data shows each message, readable or not");
  return device;
}

/** Values that were made before the page was opened: no event of the stream brings them, so the line is of the series alone. */
async function history(page, device, how) {
  for (const [minutes, pressure] of [[40, 180.5], [30, 184], [20, 179.5]]) {
    const made = encodeURIComponent(new Date(Date.now() - minutes * 60_000).toISOString());
    await device.client.publishAsync(`${how.topic}%24.ctime=${made}`, JSON.stringify({ pressure }), { qos: 1 });
  }
  await page.goto(`${given.base}/devices/${DEVICE}`);
  const tile = page.locator('[data-name="pressure"]');
  await tile.getByText("179.5", { exact: true }).waitFor();
  await tile.locator('.spark path[d*="L"]').waitFor({ state: "attached" });
  await page.getByRole("img", { name: /Pressure over time/ }).waitFor();
  said("a chart has the values from before its page was opened");
}

async function command(page) {
  await page.getByRole("navigation", { name: "Device" }).getByRole("link", { name: "Commands" }).click();
  await page.getByLabel("Name", { exact: true }).fill("open valve");
  await page.getByLabel(/^Request/).fill("{oops");
  await page.getByText(/JSON/).last().waitFor();
  await page.getByLabel("Name", { exact: true }).fill("openValve");
  await page.getByLabel(/^Request/).fill('{"percent": 40}');
  await page.getByRole("button", { name: "Run", exact: true }).click();
  const answer = page.locator(".answer");
  await answer.getByText("Done 200").waitFor();
  await answer.getByText('"percent": 40').waitFor();
  await page.getByRole("button", { name: "openValve", exact: true }).waitFor();
  said("a command is answered in place and stays in the history");
}

async function property(page) {
  await page.getByRole("link", { name: "Properties" }).click();
  await page.getByRole("button", { name: "Add a property" }).click();
  const dialog = page.getByRole("dialog", { name: "Add a property" });
  await dialog.getByLabel("Name").fill("mode");
  await dialog.getByLabel("Desired value").fill("eco");
  await dialog.getByRole("button", { name: "Save" }).click();
  const row = page.locator('[data-property="mode"]');
  await row.getByText("Accepted").waitFor();
  await row.getByText("“taken”").waitFor();
  await row.getByRole("button", { name: /edit mode$/ }).click();
  await row.getByRole("textbox", { name: "Desired value of mode" }).fill("bad");
  await row.getByRole("button", { name: "Save" }).click();
  await row.getByText("Rejected").waitFor();
  await row.getByText("“not a mode”").waitFor();
  said("a property goes to Accepted, and to Rejected with the device's words");
}

async function block(page, device) {
  const manage = async (act) => {
    await page.getByRole("button", { name: "Manage" }).click();
    await page.getByRole("button", { name: act, exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: act, exact: true }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
  };
  const closed = device.closed();
  await manage("Block");
  await page.locator(".facts .st.box").getByText("Blocked").waitFor();
  await closed;
  await manage("Unblock");
  await page.locator(".facts .st.box").getByText("Blocked").waitFor({ state: "detached" });
  said("a blocked device is disconnected at once, and may come back when it is unblocked");
}

async function wrongKey(page, how) {
  const key = how.password.replace(/sig=[^&]*/, `sig=${encodeURIComponent(Buffer.alloc(32, 9).toString("base64"))}`);
  await connectRefused({ ...how, password: key });
  await page.getByRole("link", { name: "Health" }).click();
  const cause = page.locator('[data-cause="wrong-key"]');
  await cause.getByText("It signs with another key").waitFor();
  await cause.getByText(/refused at central/).waitFor();
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: /Overview/ }).click();
  const need = page.locator(`li[data-device="${DEVICE}"]`);
  await page.getByRole("heading", { name: "Now", exact: true }).waitFor();
  await need.getByText("It signs with another key").waitFor();
  await need.getByRole("link", { name: "Show its connection string" }).waitFor();
  await need.getByRole("button", { name: /^Why/ }).click();
  const sheet = page.getByRole("dialog", { name: `Why is ${DEVICE} not OK?` });
  await sheet.locator('[data-cause="wrong-key"]').waitFor();
  await page.keyboard.press("Escape");
  await sheet.waitFor({ state: "detached" });
  said("a wrong key is what Why and the overview name");
}

async function audit(page) {
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: /Audit/ }).click();
  const row = (sentence) => page.getByRole("row").filter({ hasText: given.user }).filter({ hasText: sentence }).first();
  await row("set up central").waitFor();
  await row("was refused at sign-in").waitFor();
  await row("signed in").waitFor();
  await row(`added ${DEVICE}`).waitFor();
  await row(`blocked ${DEVICE}`).waitFor();
  said("the audit log has the sign-ins and what was changed");
}

async function viewer(page) {
  const user = "visitor";
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: /Administration/ }).click();
  await page.getByRole("row").filter({ hasText: given.user }).filter({ hasText: "Administrator" }).waitFor();
  await page.getByRole("button", { name: "New user" }).click();
  const dialog = page.getByRole("dialog", { name: "New user" });
  await dialog.getByLabel("User name").fill(user);
  await dialog.getByLabel("Password").fill(given.password);
  await dialog.getByLabel("Role").selectOption({ label: "Viewer" });
  await dialog.getByRole("button", { name: "Create" }).click();
  await page.getByRole("row").filter({ hasText: user }).filter({ hasText: "Viewer" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("User name").fill(user);
  await page.getByLabel("Password").fill(given.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("navigation", { name: "Main" }).waitFor();
  const none = async (role, name) => {
    if ((await page.getByRole(role, { name }).count()) > 0) throw new Error(`a viewer sees ${name}`);
  };
  await page.goto(`${given.base}/devices/${DEVICE}`);
  await page.locator('[data-name="temperature"]').waitFor();
  await none("button", "Manage");
  await none("link", /Run command/);
  await page.goto(`${given.base}/devices`);
  await page.getByRole("link", { name: "Press 4", exact: true }).waitFor();
  await none("button", "New device");
  said("a viewer signs in, sees the device, and has nothing that changes it");
}

async function manifest(page) {
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: /Manifests/ }).click();
  await page.getByRole("button", { name: "New manifest" }).click();
  const dialog = page.getByRole("dialog", { name: "New manifest" });
  await dialog.getByLabel("ID", { exact: true }).fill("line-press");
  await dialog.getByRole("button", { name: "Create and open" }).click();
  const editor = page.getByRole("textbox", { name: "The manifest as JSON" });
  await editor.waitFor();
  const write = (value) => rewrite(page, editor, typeof value === "string" ? value : JSON.stringify(value, null, 2));
  await write("{ \"modulesContent\": ");
  await page.getByText("1 error before it can be saved").waitFor();
  await write(given.badManifest);
  await page.getByRole("button", { name: /^Save/ }).click();
  await page.getByRole("alert").filter({ hasText: "restartPolicy" }).waitFor();
  await write(given.manifest);
  await page.getByText("Route press").waitFor();
  await page.getByRole("button", { name: /^Save/ }).click();
  await page.getByText("as stored").first().waitFor();
  said("a manifest with an error is refused with its place, and one without is stored");

  await page.getByRole("tab", { name: "Route tester" }).click();
  await page.getByLabel("From").fill(DEVICE);
  await page.getByRole("button", { name: "Test the routes" }).click();
  const goes = page.getByRole("region", { name: "Where it goes" });
  await goes.locator('[data-route="press"]').getByText("matches").waitFor();
  await page.getByRole("tab", { name: "Preview" }).click();
  const preview = page.getByRole("region", { name: /^Preview for/ });
  await preview.getByText("Add route press").waitFor();
  await preview.getByText(/decided on the gateway/).waitFor();
  said("the page says where a message would go, and what the gateway would do");

  await page.getByRole("button", { name: "Assign to gateways" }).click();
  const assign = page.getByRole("dialog", { name: "Assign to gateways" });
  await assign.getByLabel(new RegExp(given.gateway)).check();
  await assign.getByText(/will run the modules of/).waitFor();
  await assign.getByRole("button", { name: "Assign", exact: true }).click();
  await assign.waitFor({ state: "detached" });
  const row = page.locator(`tr[data-gateway="${given.gateway}"]`);
  await row.getByText("Running").waitFor();
  said("the rollout shows the gateway running it without a reload");
  await row.getByRole("link", { name: new RegExp(given.gatewayName) }).click();
  await page.getByText("In force").waitFor();
  said("it is assigned, and the gateway's page says that it is in force");

  await page.goto(`${given.base}/manifests/line-press`);
  await editor.waitFor();
  await write({ ...given.manifest, modulesContent: { ...given.manifest.modulesContent, other: { "properties.desired": { rate: 5 } } } });
  await page.getByRole("button", { name: /^Save/ }).click();
  await page.getByText("Out of date on 1 gateway").waitFor();
  await row.getByText("Out of date").waitFor();
  said("a manifest that was changed since is out of date on its gateway");
  await brokenModule(page, write, row);
}

/** A module whose image is not there: seen before it is assigned, in the rollout, and on the gateway's page. */
async function brokenModule(page, write, row) {
  await page.getByRole("tab", { name: "Preview" }).click();
  await write(given.brokenManifest);
  await page.locator('[data-effect="create"][data-module="vision"]').waitFor();
  await page.getByRole("button", { name: /^Save/ }).click();
  await page.getByText("as stored").first().waitFor();
  await page.getByRole("button", { name: "Assign to gateways" }).click();
  const assign = page.getByRole("dialog", { name: "Assign to gateways" });
  await assign.locator('[data-module="vision"]').getByText("Create").waitFor();
  await assign.getByRole("button", { name: "Assign", exact: true }).click();
  await assign.waitFor({ state: "detached" });
  await row.getByText("Failed", { exact: true }).waitFor();
  await row.getByText(/image/).waitFor();
  said("the preview was right, and the rollout says why it failed");

  await row.getByRole("link", { name: new RegExp(given.gatewayName) }).click();
  await page.waitForURL(`**/gateways/${given.gateway}/modules`);
  await page.getByRole("button", { name: "Restart", exact: true }).click();
  const restart = page.getByRole("dialog", { name: "Restart vision?" });
  await restart.getByRole("button", { name: "Restart", exact: true }).click();
  // The gateway's own words: there is no container yet.
  await restart.getByRole("alert").filter({ hasText: "vision" }).waitFor();
  await page.keyboard.press("Escape");
  await restart.waitFor({ state: "detached" });
  await page.goto(`${given.base}/gateways/${given.gateway}/commands`);
  await page.getByRole("button", { name: "RestartModule", exact: true }).waitFor();
  said("a module is asked to restart, the gateway says why it cannot, and the command is in the history");
}

inBrowser("day", async (page) => {
  await firstRun(page);
  await signInAgain(page);
  const line = await addDevice(page);
  const how = parseMosquitto(line, fs.readFileSync(given.ca));
  // The page shows central's authority too: what is pasted trusts it.
  if (!line.includes("BEGIN CERTIFICATE")) throw new Error("the lines have no certificate authority");
  const device = await connectIt(page, how);
  await history(page, device, how);
  await command(page);
  await property(page);
  await block(page, device);
  await wrongKey(page, how);
  await manifest(page);
  await audit(page);
  await viewer(page);
});
