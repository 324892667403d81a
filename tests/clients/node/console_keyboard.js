// Everything by keyboard alone: no pointer is used in this file.
"use strict";
const { given, inBrowser, said } = require("./console_browser");

async function signIn(page) {
  await page.goto(given.base);
  // The first field has the focus when the page opens.
  await page.locator("#user:focus").waitFor();
  await page.keyboard.type(given.user);
  await page.keyboard.press("Tab");
  await page.keyboard.type(given.password);
  await page.keyboard.press("Enter");
  await page.getByRole("navigation", { name: "Main" }).waitFor();
  said("signed in");
}

async function goKeys(page) {
  const heading = (name) => page.getByRole("heading", { level: 1, name });
  for (const [key, name] of [
    ["d", "Devices"],
    ["g", "Gateways"],
    ["m", "Manifests"],
    ["a", "Audit"],
    ["s", "Administration"],
  ]) {
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await heading(name).waitFor();
  }
  said("each page has its keys");
}

async function listKeys(page) {
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await page.getByRole("link", { name: "Press 1", exact: true }).waitFor();
  await page.keyboard.press("j");
  await page.locator("tr.cur").waitFor();
  await page.keyboard.press("x");
  await page.getByText("1 selected").waitFor();
  await page.keyboard.press("Escape");
  await page.getByText("1 selected").waitFor({ state: "detached" });
  await page.keyboard.press("/");
  await page.getByLabel("Filter by name or id").focus();
  await page.keyboard.type("press-2");
  await page.waitForURL("**search=press-2");
  await page.getByRole("link", { name: "Press 1", exact: true }).waitFor({ state: "detached" });
  await page.keyboard.press("Escape");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Press 2" }).waitFor();
  said("rows are moved over, selected, filtered and opened");
  await page.goBack();
  await page.waitForURL("**search=press-2");
  if ((await page.getByLabel("Filter by name or id").inputValue()) !== "press-2") throw new Error("Back did not bring the filter back");
  said("Back is exact");
}

async function palette(page) {
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Search or jump to" }).waitFor();
  await page.keyboard.type("press-3");
  await page.getByRole("option", { name: /press-3/ }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Press 3" }).waitFor();
  said("anything is found by Ctrl K");
}

async function dialogs(page) {
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog", { name: "Keys" }).waitFor({ state: "detached" });
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await page.getByRole("heading", { level: 1, name: "Devices" }).waitFor();
  await page.keyboard.press("c");
  const dialog = page.getByRole("dialog", { name: "New device" });
  await dialog.waitFor();
  await page.keyboard.type("press-9");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/devices/press-9/connect");
  said("a device is added without a pointer");
  // Focus goes round inside a dialog and comes back to where it was.
  await page.getByRole("button", { name: "Manage" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Rename" }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: /Rename/ }).waitFor();
  for (let at = 0; at < 12; at += 1) {
    await page.keyboard.press("Tab");
    const isInside = await page.evaluate(() => {
      const dialog = document.querySelector("dialog[open]");
      const active = document.activeElement;
      // Between the last and the first element the focus is the browser's own.
      return active === document.body || (dialog !== null && dialog.contains(active));
    });
    if (!isInside) throw new Error("the focus left an open dialog");
  }
  await page.keyboard.press("Escape");
  await page.getByRole("dialog", { name: /Rename/ }).waitFor({ state: "detached" });
  said("a dialog keeps the focus until it is closed");
}

inBrowser("keyboard", async (page) => {
  await signIn(page);
  await goKeys(page);
  await listKeys(page);
  await palette(page);
  await dialogs(page);
});
