// Pictures of every page from the fixture, for looking at: node dev/shots.mjs PLAYWRIGHT_DIR [name,name] [width,width] [theme,theme]

import { mkdirSync, mkdtempSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(`${process.argv[2]}/`);
const { chromium } = require("playwright-core");
const only = (process.argv[3] ?? "").split(",").filter(Boolean);
const widths = (process.argv[4] ?? "1440").split(",").map(Number);
const themes = (process.argv[5] ?? "light,dark").split(",");
const base = process.env.BASE ?? "http://127.0.0.1:8099";
const out = new URL("./shots/", import.meta.url).pathname;
mkdirSync(out, { recursive: true });

const PAGES = {
  overview: "/",
  devices: "/devices",
  "devices-filter": "/devices?verdict=degraded&search=c",
  "devices-why": "/devices?why=press-036-hydraulics",
  "devices-new": "/devices?new=device",
  gateways: "/gateways",
  device: "/devices/cnc-005-spindle?range=now-6h",
  raw: "/devices/cnc-005-spindle/raw",
  properties: "/devices/cnc-005-spindle/properties",
  commands: "/devices/cnc-005-spindle/commands",
  connect: "/devices/cnc-005-spindle/connect",
  health: "/devices/press-036-hydraulics/health",
  gateway: "/gateways/gw-line-07",
  "gateway-down": "/gateways/gw-line-02",
  "gateway-devices": "/gateways/gw-line-07/devices",
  "gateway-deployment": "/gateways/gw-line-05/deployment",
  "gateway-system": "/gateways/gw-line-07/system",
  "gateway-connect": "/gateways/gw-line-07/connect",
  assign: "/manifests/line-cnc?do=assign",
  manifests: "/manifests",
  manifest: "/manifests/line-cnc",
  "manifest-preview": "/manifests/line-cnc?side=preview",
  "manifest-routes": "/manifests/line-cnc?side=routes",
  "manifest-failed": "/manifests/line-press?state=failed",
  "gateway-modules": "/gateways/gw-line-07/modules",
  "gateway-logs": "/gateways/gw-line-07/logs",
  "gateway-logs-find": "/gateways/gw-line-07/logs?find=memory",
  "gateway-logs-none": "/gateways/gw-line-07/logs?module=tool-wear",
  "gateway-logs-away": "/gateways/gw-line-02/logs",
  "gateway-restart": "/gateways/gw-line-07/modules?restart=vision-filter",
  "connect-qr": "/devices/cnc-005-spindle/connect?qr=connection",
  "join-qr": "/gateways/gw-line-07/connect?qr=join",
  audit: "/audit",
  users: "/administration/users",
  tokens: "/administration/tokens",
  you: "/administration/you",
  missing: "/nowhere",
};

const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "shots-")), {
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = context.pages()[0] ?? (await context.newPage());
page.on(
  "console",
  (message) =>
    ["error", "warning"].includes(message.type()) &&
    console.log(`  console: ${message.text().slice(0, 300)}`),
);
const said = new Set();
page.on("pageerror", (error) => {
  const text = error.stack?.slice(0, 600) ?? String(error);
  if (!said.has(text)) console.log(`  error: ${text}`);
  said.add(text);
});

async function shot(name, width, theme) {
  await page.screenshot({ path: `${out}${name}-${theme}-${width}.png` });
}
for (const width of widths) {
  for (const theme of themes) {
    await page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
    await page.setViewportSize({ width, height: 900 });
    await context.clearCookies();
    await fetch(`${base}/api/ext/session`, { method: "DELETE" });
    await page.goto(base);
    await page.getByLabel("User name").waitFor();
    if (only.length === 0 || only.includes("sign-in")) await shot("sign-in", width, theme);
    await page.getByLabel("User name").fill("night-shift");
    await page.getByLabel("Password").fill("night-shift-pass");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("navigation", { name: "Main" }).waitFor();
    for (const [name, path] of Object.entries(PAGES)) {
      if (only.length > 0 && !only.includes(name)) continue;
      console.log(`${name} ${theme} ${width}`);
      await page.goto(base + path);
      await page.locator("main, dialog").first().waitFor();
      await page.waitForTimeout(name === "device" || name === "raw" ? 2500 : 700);
      await shot(name, width, theme);
    }
    if (only.includes("palette")) {
      await page.goto(`${base}/devices`);
      await page.keyboard.press("Control+k");
      await page.keyboard.type("press-03");
      await page.waitForTimeout(500);
      await shot("palette", width, theme);
    }
    if (only.includes("help")) {
      await page.goto(`${base}/devices`);
      await page.locator(".grid").waitFor();
      await page.keyboard.press("?");
      await page.waitForTimeout(300);
      await shot("help", width, theme);
    }
  }
}
await context.close();
