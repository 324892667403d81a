// Device templates in the browser: from a file with an error, without one, edited with its impact, a new version, migrated to, deleted.
"use strict";
const fs = require("fs");
const { api, given, inBrowser, rewrite, said, signIn } = require("./console_browser");

const VERSION = "api-version=2022-10-31-preview";
const PRESS = "dtmi:plant:press;1";
const NEXT = "dtmi:plant:press;2";
const DEVICES = ["press-1", "press-2", "press-3"];

/** Interfaces as they stand in a repository of models: one file, each by its id. */
function dtdl(schema) {
  const context = "dtmi:dtdl:context;2";
  return [
    { "@context": context, "@id": "dtmi:plant:motor;1", "@type": "Interface", contents: [{ "@type": "Telemetry", name: "rpm", schema: "integer" }] },
    {
      "@context": context,
      "@id": PRESS,
      "@type": "Interface",
      displayName: "Press",
      contents: [
        { "@type": ["Telemetry", "Temperature"], name: "oil", displayName: "Oil temperature", schema, unit: "degreeCelsius" },
        { "@type": "Property", name: "limit", schema: "double", writable: true },
        { "@type": "Component", name: "motor", schema: "dtmi:plant:motor;1" },
      ],
    },
  ];
}

async function importOne(page) {
  await page.goto(`${given.base}/templates`);
  await page.getByText("No template yet.").waitFor();
  await page.getByRole("button", { name: "New template" }).click();
  const dialog = page.getByRole("dialog", { name: "New template" });
  const pasted = dialog.getByLabel("Or pasted");
  await pasted.fill('{"@id": "dtmi:a:b;1"');
  await dialog.getByText(/JSON/).first().waitFor();
  await pasted.fill(JSON.stringify(dtdl("number")));
  const problem = dialog.locator('[data-rule="badDtmiOrTerm"]');
  await problem.getByText("contents[0].schema", { exact: true }).waitFor();
  await problem.getByText("dtmi:plant:press:_contents:__oil;1").waitFor();
  if (await dialog.getByRole("button", { name: "Create" }).isEnabled()) throw new Error("a wrong model can be created");
  said("a wrong file is refused with the element, the place and the rule");
  await dialog.getByLabel("File").setInputFiles({ name: "press.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(dtdl("double"))) });
  await dialog.getByText("4 capabilities in 2 interfaces, no problems.").waitFor();
  await dialog.getByRole("button", { name: "Create" }).click();
  await page.getByRole("heading", { name: "Press", level: 1 }).waitFor();
  const oil = page.locator('[data-capability="oil"]');
  await oil.getByText("Oil temperature").waitFor();
  await oil.getByText("Temperature", { exact: true }).waitFor();
  await oil.getByText("°C").waitFor();
  await page.locator('[data-interface="dtmi:plant:motor;1"]').getByText("Component motor").waitFor();
  said("interfaces of a DTDL file become a template, shown by interface and component");
}

async function assign(page) {
  for (const id of DEVICES) await api(page, "PUT", `/api/devices/${id}?${VERSION}`, { displayName: id });
  await page.goto(`${given.base}/devices`);
  await page.getByLabel("Select all that are loaded").check();
  await page.getByRole("toolbar").getByRole("button", { name: "Migrate" }).click();
  const dialog = page.getByRole("dialog", { name: "Migrate 3 devices" });
  await dialog.getByLabel("Template").selectOption(PRESS);
  await dialog.getByRole("button", { name: "Migrate 3" }).click();
  await page.getByText("3 devices are migrated to Press.").waitFor();
  await page.getByRole("link", { name: "Press 1" }).nth(2).waitFor();
  said("the selected devices get a template");
}

async function edit(page) {
  await page.goto(`${given.base}/templates/${encodeURIComponent(PRESS)}/edit`);
  const field = page.getByRole("textbox", { name: "The template as JSON" });
  const write = async (change) => {
    const document = await api(page, "GET", `/api/deviceTemplates/${encodeURIComponent(PRESS)}?${VERSION}`);
    delete document.etag;
    change(document);
    await rewrite(page, field, JSON.stringify(document, null, 2));
  };
  const publish = page.getByRole("button", { name: "Publish", exact: true });
  await page.getByText("3 devices have it, and would take every change.").waitFor();
  await write((document) => { document.capabilityModel.contents[1].schema = "number"; });
  await page.locator('[data-rule="badDtmiOrTerm"]').getByRole("button", { name: "contents[1].schema" }).click();
  if (await publish.isEnabled()) throw new Error("a wrong model can be published");
  await write((document) => { document.capabilityModel.contents[1].schema = "string"; });
  const changes = page.getByRole("list", { name: "Changes" });
  await changes.getByText("schema: double becomes string").waitFor();
  await changes.getByText("breaking").waitFor();
  said("the editor tells what is wrong, and which change is breaking");
  await write((document) => { document.capabilityModel.contents.push({ "@type": "Telemetry", name: "load", schema: "double" }); });
  await changes.getByText("Telemetry is added").waitFor();
  await publish.click();
  const dialog = page.getByRole("dialog", { name: "Publish Press?" });
  await dialog.getByText("3 devices have this version and take the changes at once.").waitFor();
  await dialog.getByText("Telemetry is added").waitFor();
  await dialog.getByRole("button", { name: "Publish to 3 devices" }).click();
  await page.getByText("Press is published to 3 devices.").waitFor();
  said("publishing says whom it concerns, and does it");
}

async function version(page) {
  await page.getByRole("button", { name: "Publish as version 2" }).click();
  const dialog = page.getByRole("dialog", { name: "Publish as version 2?" });
  await dialog.getByText("3 devices stay on version 1 until migrated.").waitFor();
  await dialog.getByRole("button", { name: "Publish version 2" }).click();
  await page.waitForURL(`**/templates/${encodeURIComponent(NEXT)}/devices`);
  await page.getByText("3 devices have an earlier version.").waitFor();
  await page.getByRole("button", { name: "Migrate 3 devices to version 2" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Migrate 3" }).click();
  await page.getByText("3 devices migrated to version 2.").waitFor();
  await page.getByRole("link", { name: "press-2", exact: true }).waitFor();
  said("a new version is made, and the devices of the earlier one are migrated to it");
}

async function exportAndDelete(page) {
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Export" }).click();
  const file = await download;
  const document = JSON.parse(fs.readFileSync(await file.path(), "utf8"));
  if (file.suggestedFilename() !== "plant-press-2.json" || document["@id"] !== NEXT || "etag" in document) throw new Error(`export: ${JSON.stringify(document)}`);
  await page.getByRole("button", { name: "Manage" }).click();
  const remove = page.getByRole("button", { name: "Delete" });
  if (await remove.isEnabled()) throw new Error("a template that devices have can be deleted");
  await page.goto(`${given.base}/templates/${encodeURIComponent(PRESS)}`);
  await page.getByRole("button", { name: "Manage" }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByLabel(/to go on/).fill(PRESS);
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.waitForURL("**/templates");
  await page.getByRole("searchbox").fill("press");
  await page.getByRole("row").filter({ hasText: NEXT }).waitFor();
  await page.getByRole("row").filter({ hasText: PRESS }).waitFor({ state: "detached" });
  said("a template is exported, and deleted once no device has it");
}

async function unassign(page) {
  await page.goto(`${given.base}/devices/press-1`);
  await page.getByRole("link", { name: "Press 2" }).waitFor();
  await page.getByRole("button", { name: "Manage" }).click();
  await page.getByRole("button", { name: "Migrate to another template" }).click();
  const dialog = page.getByRole("dialog", { name: "Migrate press-1" });
  await dialog.getByLabel("Template").selectOption("none");
  await dialog.getByRole("button", { name: "Unassign" }).click();
  await page.locator(".facts").getByText("Unassigned").waitFor();
  await api(page, "PATCH", `/api/devices/press-1/properties?${VERSION}`, { mode: "eco", level: 3 });
  await page.goto(`${given.base}/templates?new=template`);
  const made = page.getByRole("dialog", { name: "New template" });
  await made.getByRole("button", { name: "From a device's data" }).click();
  await made.getByLabel("Unassigned device").selectOption("press-1");
  await made.getByRole("button", { name: "Create" }).click();
  await page.locator('[data-capability="mode"]').getByText("writable").waitFor();
  await page.getByRole("link", { name: /Devices and versions/ }).click();
  await page.getByRole("row").getByRole("link", { name: "press-1", exact: true }).waitFor();
  said("a template is made of an unassigned device's data, and assigned to it");
}

inBrowser("templates", async (page) => {
  await signIn(page);
  await importOne(page);
  await assign(page);
  await edit(page);
  await version(page);
  await exportAndDelete(page);
  await unassign(page);
});
