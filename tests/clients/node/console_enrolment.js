// Enrolment in the browser: a group whose devices wait, devices of the Azure SDK that are approved and rejected one by one and
// together, and a group whose certificate authority is proven. The devices are the test's; it starts them once the group is there.
"use strict";
const fs = require("fs");
const path = require("path");
const { given, inBrowser, said, signIn, STEP_MS } = require("./console_browser");

const [ONE, TWO, THREE, FOUR] = given.devices;

async function makeGroup(page) {
  await page.keyboard.press("g");
  await page.keyboard.press("s");
  await page.getByRole("link", { name: "Enrolment groups" }).click();
  await page.getByText("No enrolment group yet.").waitFor();
  await page.keyboard.press("c");
  const dialog = page.getByRole("dialog", { name: "New enrolment group" });
  await dialog.waitFor();
  // The first field has the focus; the rest is typed and chosen by keys.
  await page.keyboard.type("Line 4");
  await dialog.getByText("Manually approve").waitFor();
  if ((await dialog.getByLabel("Group ID").inputValue()) !== "line-4") throw new Error("the id does not follow the name");
  await dialog.getByRole("radio", { name: "Automatically approve" }).focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/administration/enrolment/line-4");
  const approve = page.getByRole("switch", { name: /Auto approve/ });
  await approve.waitFor();
  if (await approve.isChecked()) throw new Error("the group approves by itself");
  await page.getByRole("button", { name: "Show", exact: true }).click();
  const key = await page.getByLabel("primary key", { exact: true }).innerText();
  if (!/^[A-Za-z0-9+/]{43}=$/.test(key)) throw new Error(`the key is ${key}`);
  await page.getByRole("button", { name: "Copy the primary key" }).waitFor();
  said("a group is made whose devices wait, and shows its keys");
}

async function decide(page) {
  await page.goto(given.base);
  const need = (id) => page.locator(`li[data-device="${id}"]`);
  for (const id of given.devices) await need(id).getByText("waits for an operator's approval").waitFor();
  said("the overview tells of every device that waits");
  await need(ONE).getByRole("link", { name: "Approve it" }).click();
  const dialog = page.getByRole("dialog", { name: `Approve ${ONE}?` });
  await dialog.getByText("connects by itself").waitFor();
  await dialog.getByRole("button", { name: "Approve", exact: true }).click();
  await page.getByText(`${ONE} is approved.`).waitFor();
  // It goes on by itself: no key is typed on it, and this page is not loaded again.
  await page.locator(".facts").getByText(/Provisioned$/).waitFor();
  await page.locator('[data-name="enrolled"]').waitFor();
  said("one is approved from the overview, connects and sends");

  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await page.getByRole("link", { name: /Waiting for approval/ }).click();
  await page.waitForURL("**verdict=waiting");
  await page.getByRole("link", { name: ONE, exact: true }).waitFor({ state: "detached" });
  await page.getByRole("link", { name: FOUR, exact: true }).waitFor();
  for (const number of [1, 2]) {
    await page.keyboard.press("j");
    await page.keyboard.press("x");
    await page.getByText(`${number} selected`).waitFor();
  }
  await page.getByRole("button", { name: "Approve", exact: true }).press("Enter");
  await page.getByRole("dialog", { name: "Approve 2 devices?" }).getByRole("button", { name: "Approve 2" }).press("Enter");
  await page.getByText("2 devices approved.").waitFor();
  for (const id of [TWO, THREE]) await page.getByRole("link", { name: id, exact: true }).waitFor({ state: "detached" });
  said("two are approved together, by keyboard");
  await page.getByRole("checkbox", { name: new RegExp(FOUR) }).check();
  await page.getByRole("button", { name: "Reject", exact: true }).click();
  await page.getByRole("dialog", { name: "Reject 1 device?" }).getByRole("button", { name: "Reject 1" }).click();
  await page.getByText("1 device rejected.").waitFor();
  await page.getByText("No device matches.").waitFor();
  await page.goto(`${given.base}/devices/${FOUR}`);
  await page.locator(".facts").getByText(/Blocked$/).first().waitFor();
  said("one is rejected");
}

async function changeGroup(page) {
  await page.goto(`${given.base}/administration/enrolment`);
  const row = page.locator('tr[data-group="line-4"]');
  await row.getByText("Approved manually").waitFor();
  await row.getByRole("cell", { name: "4", exact: true }).waitFor();
  await row.getByRole("link", { name: "Line 4" }).click();
  await page.getByRole("switch", { name: /Auto approve/ }).click();
  const dialog = page.getByRole("dialog", { name: "Approve new devices automatically?" });
  await dialog.getByRole("button", { name: "Automatically approve" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByText("A new device with a right proof connects at once.").waitFor();
  if (!(await page.getByRole("switch", { name: /Auto approve/ }).isChecked())) throw new Error("the switch is off");
  await page.goto(`${given.base}/audit`);
  for (const sentence of [`approved ${ONE}`, `approved ${THREE}`, `rejected ${FOUR}`, "changed how enrolment group line-4 approves"]) await page.getByText(sentence).first().waitFor();
  said("the group approves by itself now, and the audit log has every decision");
}

async function appears(file) {
  const ends = Date.now() + STEP_MS;
  while (!fs.existsSync(file)) {
    if (Date.now() > ends) throw new Error(`${file} was not written`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function proveAuthority(page) {
  await page.goto(`${given.base}/administration/enrolment?new=group`);
  const dialog = page.getByRole("dialog", { name: "New enrolment group" });
  await dialog.getByLabel("Name", { exact: true }).fill("Line 5");
  await dialog.getByRole("radio", { name: "Certificates (X.509)" }).check();
  await dialog.getByRole("button", { name: "Create" }).click();
  await page.waitForURL("**/administration/enrolment/line-5");
  const primary = page.locator('section[data-entry="primary"]');
  await primary.getByText("Not uploaded").waitFor();
  await primary.getByLabel("Primary certificate file").setInputFiles(given.authority);
  await primary.getByText("Not verified").waitFor();
  await primary.getByRole("button", { name: "Generate verification code" }).click();
  const code = await primary.getByLabel("the verification code", { exact: true }).innerText();
  const [asked, proof] = ["verification-code", "proof.pem"].map((name) => path.join(given.dir, name));
  fs.writeFileSync(`${asked}.new`, code);
  fs.renameSync(`${asked}.new`, asked);
  // A certificate that says nothing of the key is told apart from the proof.
  await primary.getByLabel("Verification certificate").setInputFiles(given.authority);
  await primary.getByRole("alert").filter({ hasText: /certificate/ }).waitFor();
  await appears(proof);
  await primary.getByLabel("Verification certificate").setInputFiles(proof);
  await primary.getByText("Verified", { exact: true }).waitFor();
  said("an authority's key is proven");
  await page.getByLabel("Gateway to add").fill(given.gateway);
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByRole("link", { name: given.gateway, exact: true }).waitFor();
  await page.getByRole("button", { name: "Delete", exact: true }).first().click();
  const gone = page.getByRole("dialog", { name: "Delete enrolment group Line 5?" });
  await gone.getByRole("textbox").fill("line-5");
  await gone.getByRole("button", { name: "Delete", exact: true }).click();
  await page.waitForURL("**/administration/enrolment");
  await page.locator('tr[data-group="line-5"]').waitFor({ state: "detached" });
  said("a gateway is allowed, and the group is deleted");
}

inBrowser("enrolment", async (page) => {
  await signIn(page);
  await makeGroup(page);
  await decide(page);
  await changeGroup(page);
  await proveAuthority(page);
});
