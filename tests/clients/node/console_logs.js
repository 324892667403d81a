// The log of a module: read, followed, filtered, searched and downloaded, and why there is none. The gateway runs the module `chatty`.
"use strict";
const fs = require("fs");
const path = require("path");
const { execFileSync } = require("child_process");
const { api, faultsOf, given, inBrowser, said, signIn } = require("./console_browser");

const VERSION = "api-version=2022-10-31-preview";
const VIEWER = { user: "early-shift", password: "another horse battery" };

const region = (page) => page.getByRole("region", { name: "The log of chatty" });

/** Has the module write a line. */
function write(line) {
  execFileSync("docker", ["exec", given.container, "/bin/busybox", "sh", "-c", `echo '${line}' > /proc/1/fd/1`]);
}

async function open(page) {
  await page.goto(`${given.base}/gateways/${given.gateway}/modules`);
  await page.getByRole("row").filter({ hasText: "chatty" }).getByText("Running").waitFor();
  await page.getByRole("button", { name: "Details of chatty" }).click();
  await page.getByRole("link", { name: "Its log" }).first().waitFor();
  await page.goto(`${given.base}/gateways/${given.gateway}/logs?module=chatty`);
  const log = region(page);
  await log.getByText("pump off").waitFor();
  await log.getByText("error", { exact: true }).waitFor();
  const text = await log.innerText();
  if (text.includes("hunter2") || !text.includes("redacted")) throw new Error(`a secret is shown: ${text}`);
  said("the last lines are read, with their severity and without secrets");
}

async function follow(page) {
  await page.keyboard.press("f");
  await page.getByRole("button", { name: "Following", pressed: true }).waitFor();
  write("pump on");
  await region(page).getByText("pump on").waitFor();
  await page.keyboard.press("f");
  await page.getByRole("button", { name: "Follow", pressed: false }).waitFor();
  write("pump warm");
  await page.keyboard.press("r");
  await region(page).getByText("pump warm").waitFor();
  said("new lines come while it is followed, and when it is read again");
}

async function filter(page) {
  await page.keyboard.press("/");
  await page.keyboard.type("PUMP ON");
  await page.getByText(/^1 of \d+ lines$/).waitFor();
  await region(page).getByText("pump off").waitFor({ state: "detached" });
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
  const file = fs.readFileSync(await download.path(), "utf8");
  if (!/^\S+ pump on\n$/.test(file)) throw new Error(`the file has not the shown lines: ${file}`);
  await page.getByLabel("Filter lines by text").fill("nothing (has) this");
  await page.getByText("No line has this text.").waitFor();
  await page.getByRole("button", { name: "search the whole log" }).click();
  await page.getByText("The container's whole log was searched.").waitFor();
  await page.getByRole("link", { name: "Back to the last lines" }).click();
  await region(page).getByText("pump off").waitFor();
  said("lines are filtered and downloaded, and the whole log is searched");
}

async function keyboard(page) {
  await page.getByRole("button", { name: "Download" }).focus();
  await page.keyboard.press("Tab");
  await page.locator('[aria-label="The log of chatty"]:focus').waitFor();
  said("the lines are reached by the keyboard");
}

async function both(page) {
  for (const theme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: theme });
    const faults = await faultsOf(page);
    if (faults.length > 0) throw new Error(`${theme}: ${faults.join("\n")}`);
    if (given.shots) await page.screenshot({ path: path.join(given.shots, `gateway-logs-${theme}.png`) });
  }
  said("the page has no serious fault of accessibility in either theme");
}

async function away(page) {
  await page.getByLabel("Module").selectOption("vision");
  await page.getByText("vision has no container.").waitFor();
  await page.getByLabel("Module").selectOption("chatty");
  await region(page).getByText("pump off").waitFor();
  await api(page, "PATCH", `/api/devices/${given.gateway}?${VERSION}`, { enabled: false });
  await page.getByText("The gateway is away.").waitFor();
  await region(page).getByText("pump off").waitFor();
  await page.reload();
  await page.getByText("The gateway is away.").waitFor();
  said("a module without a container and a gateway that is away are named");
}

async function viewer(page, context) {
  await api(page, "PUT", `/api/users/${VIEWER.user}?${VERSION}`, { type: "email", email: VIEWER.user, roles: [{ role: "viewer" }] });
  await api(page, "POST", `/api/ext/users/${VIEWER.user}/password`, { password: VIEWER.password });
  await context.clearCookies();
  await signIn(page, VIEWER.user, VIEWER.password);
  await page.goto(`${given.base}/gateways/${given.gateway}/logs?module=chatty`);
  await page.getByText("Logs are for operators.").waitFor();
  if ((await page.getByRole("link", { name: "Logs", exact: true }).count()) > 0) throw new Error("a viewer is shown Logs");
  said("viewers read no logs");
}

inBrowser("logs", async (page, context) => {
  await signIn(page);
  await open(page);
  await follow(page);
  await filter(page);
  await keyboard(page);
  await both(page);
  await away(page);
  await viewer(page, context);
});
