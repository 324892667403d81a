// A browser at central's console: Debian's chromium, driven as an operator would. Everything awaits what it needs to see; nothing sleeps.
"use strict";
const fs = require("fs");
const path = require("path");
const { chromium } = require("playwright-core");

// Long, because the machine may be busy with other tests; an event ends each wait.
const STEP_MS = 60_000;
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** What the test says: addresses, names, a directory. */
const given = JSON.parse(process.argv[2]);

function said(step) {
  process.stdout.write(`${step}\n`);
}

/** Opens a browser with a new profile, runs `work` in it, and says what went wrong where. */
async function inBrowser(name, work) {
  const profile = fs.mkdtempSync(path.join(given.dir, "browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
    viewport: { width: 1280, height: 800 },
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(STEP_MS);
  const page = context.pages()[0] || (await context.newPage());
  const faults = [];
  page.on("pageerror", (error) => faults.push(`error of the page: ${error.stack || error}`));
  page.on("console", (message) => {
    // The policy's refusals, which would leave a page without its style; answers with 4xx are part of what is tested.
    if (message.type() !== "error" || !/Content Security Policy|Refused to/.test(message.text())) return;
    const { url, lineNumber, columnNumber } = message.location();
    faults.push(`${message.text()}\nby ${url}:${lineNumber}:${columnNumber}`);
  });
  try {
    await work(page, context);
    if (faults.length > 0) throw new Error(faults.join("\n"));
    said("done");
  } catch (error) {
    await page.screenshot({ path: path.join(given.dir, `${name}-failed.png`) }).catch(() => {});
    const text = await page.locator("body").innerText().catch(() => "");
    process.stderr.write(`${error.stack || error}\n${faults.join("\n")}\nat ${page.url()}, which says:\n${text.slice(0, 3000)}\n`);
    process.exitCode = 1;
  } finally {
    await context.close();
  }
  // A device that is still connected would keep the script running.
  process.exit();
}

async function signIn(page, user = given.user, password = given.password) {
  await page.goto(given.base);
  await page.getByLabel("User name").fill(user);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("navigation", { name: "Main" }).waitFor();
}

/** Asks central with the session of the page. */
async function api(page, method, address, body) {
  const options = { method, headers: { "Content-Type": "application/json" } };
  if (body !== undefined) options.data = body;
  const answer = await page.request.fetch(given.base + address, options);
  if (!answer.ok()) throw new Error(`${method} ${address} answered ${answer.status()}: ${await answer.text()}`);
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

/**
 * Replaces the text of a JSON editor. The old text goes by the editor's own commands first: where Chromium itself replaces selected
 * text, it sometimes writes a styled span, which the page's Content-Security-Policy refuses, although nothing of the page is at fault.
 */
async function rewrite(page, editor, text) {
  await editor.focus();
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await page.keyboard.insertText(text);
}

/** The serious and critical faults of accessibility that axe finds. */
async function faultsOf(page) {
  // By the debugger, which the page's policy does not bind.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations
    .filter((fault) => ["serious", "critical"].includes(fault.impact))
    .map((fault) => `${fault.id}: ${fault.help}\n${fault.nodes.slice(0, 4).map((node) => `    ${node.html.slice(0, 200)}\n    ${node.failureSummary.replaceAll("\n", " ")}`).join("\n")}`);
}

module.exports = { api, faultsOf, given, inBrowser, rewrite, said, signIn, STEP_MS };
