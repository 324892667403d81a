// Many devices by IoT Central's file in the browser: a thousand lines with three bad ones, their errors as a file, mended, and exported with keys.
"use strict";
const fs = require("fs");
const { api, given, inBrowser, said, signIn } = require("./console_browser");

/** Three of its lines are wrong. */
function thousand() {
  const lines = ["IOTC_DEVICEID,IOTC_DEVICENAME"];
  for (let number = 1; number <= 1000; number += 1) {
    if (number === 17) lines.push("press 17,Press 17");
    else if (number === 500) lines.push(",no id");
    else if (number === 1000) lines.push("press-1,again");
    else lines.push(`press-${number},Press ${number}`);
  }
  return `\ufeff${lines.join("\r\n")}\r\n`;
}

const file = (name, content) => ({ name, mimeType: "text/csv", buffer: Buffer.from(content) });

async function downloaded(page, act) {
  const download = page.waitForEvent("download");
  await act();
  const got = await download;
  return { name: got.suggestedFilename(), text: fs.readFileSync(await got.path(), "utf8") };
}

async function importThousand(page) {
  await page.goto(`${given.base}/devices`);
  await page.getByRole("button", { name: "Import" }).click();
  const dialog = page.getByRole("dialog", { name: "Import devices" });
  const choose = dialog.getByLabel(/^File/);
  await choose.setInputFiles(file("latin.csv", Buffer.from([0x49, 0xe4])));
  await dialog.getByText("The file is not UTF-8").waitFor();
  await choose.setInputFiles(file("other.csv", "name,id\na,b\n"));
  await dialog.getByText(/no column IOTC_DEVICEID/).waitFor();
  await choose.setInputFiles(file("line 4.csv", thousand()));
  await dialog.getByText("997 devices can be added.").waitFor();
  await dialog.getByText("3 lines can't:").waitFor();
  for (const line of ["18", "501", "1,001"]) await dialog.getByRole("cell", { name: line, exact: true }).waitFor();
  await dialog.getByRole("cell", { name: /is on line 2 already/ }).waitFor();
  said("the file is looked at first: 997 devices, and the three bad lines with their causes");
  await dialog.getByRole("button", { name: "Import 997" }).click();
  const panel = page.getByRole("dialog", { name: "Device operations" });
  await panel.getByText("Done with errors").waitFor();
  await panel.getByText("997 devices added, 3 lines failed.").waitFor();
  const errors = await downloaded(page, () => panel.getByRole("button", { name: "Download the errors" }).click());
  const lines = errors.text.trim().split("\r\n");
  if (errors.name !== "line 4-errors.csv" || lines.length !== 4 || !lines[1].startsWith("18,press 17,")) throw new Error(`${errors.name}: ${errors.text}`);
  said("the operations panel opens by itself, and gives the three lines as a file");
  await panel.getByRole("button", { name: "Close" }).click();
  await page.getByText("997", { exact: true }).first().waitFor();
  await page.getByRole("searchbox").fill("press-999");
  await page.getByRole("link", { name: "Press 999", exact: true }).waitFor();
  said("the list has them");
}

async function exportWithKeys(page) {
  await page.goto(`${given.base}/devices`);
  const open = async () => {
    await page.getByRole("button", { name: "Export" }).click();
    return page.getByRole("dialog", { name: "Export devices" });
  };
  let dialog = await open();
  const plain = await downloaded(page, () => dialog.getByRole("button", { name: "Export" }).click());
  if (plain.text.split("\r\n").length !== 999 || !plain.text.startsWith("\ufeffIOTC_DEVICEID,IOTC_DEVICENAME\r\n")) throw new Error(plain.text.slice(0, 200));
  await page.getByText("997 devices exported.").waitFor();
  dialog = await open();
  await dialog.getByRole("checkbox").check();
  const keys = await downloaded(page, () => dialog.getByRole("button", { name: "Export" }).click());
  const { symmetricKey } = await api(page, "GET", "/api/devices/press-2/credentials?api-version=2022-10-31-preview");
  if (!keys.text.includes(`press-2,Press 2,${symmetricKey.primaryKey},${symmetricKey.secondaryKey},,\r\n`)) throw new Error(keys.text.slice(0, 300));
  await page.goto(`${given.base}/audit`);
  await page.getByRole("row").filter({ hasText: "/api/ext/devices/export" }).first().waitFor();
  said("an export has the keys when an administrator asks for them, and the audit log notes it");
}

inBrowser("import", async (page) => {
  await signIn(page);
  await importThousand(page);
  await exportWithKeys(page);
});
