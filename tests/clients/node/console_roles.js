// Roles of one's own on the page Users: made, given, tried by who has it, changed, and deleted once nobody has it. With `shots`, pictures
// of the page and its dialog go to that directory.
"use strict";
const path = require("path");
const { api, faultsOf, given, inBrowser, said, signIn } = require("./console_browser");

const RELIEF = "relief";
const RELIEF_PASSWORD = "battery horse correct";

/** The check box of a permission in the dialog of a role. */
function box(dialog, permission) {
  const [area, act] = permission.split(".");
  return dialog.getByRole("group", { name: area, exact: true }).getByRole("checkbox", { name: act, exact: true });
}

async function checkBothThemes(page, name) {
  for (const theme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: theme });
    const faults = await faultsOf(page);
    if (faults.length > 0) throw new Error(`${name}, ${theme}: ${faults.join("\n")}`);
    if (given.shots) await page.screenshot({ path: path.join(given.shots, `${name}-${theme}.png`), fullPage: true });
  }
}

async function makeRole(page) {
  await page.goto(`${given.base}/administration/users`);
  await page.getByRole("button", { name: "New role" }).click();
  const dialog = page.getByRole("dialog", { name: "New role" });
  await dialog.getByLabel("Id", { exact: true }).fill("night-watch");
  await dialog.getByLabel("Name", { exact: true }).fill("Night watch");
  await box(dialog, "deviceInstances.create").check();
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.getByText(/deviceInstances\.update/).waitFor();
  said("a permission without what it needs is refused, and the dialog says what is missing");
  await box(dialog, "deviceInstances.create").uncheck();
  await box(dialog, "deviceInstances.view").check();
  await checkBothThemes(page, "role-dialog");
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.waitFor({ state: "hidden" });
  await role(page).getByText("deviceInstances.view", { exact: true }).waitFor();
  await checkBothThemes(page, "role-list");
  said("the role is made, and the page lists it with its permissions");
}

const role = (page) => page.getByRole("row").filter({ hasText: "Night watch" }).filter({ hasText: "deviceInstances" });

async function give(page) {
  await page.getByRole("button", { name: "New user" }).click();
  const dialog = page.getByRole("dialog", { name: "New user" });
  await dialog.getByLabel("User name").fill(RELIEF);
  await dialog.getByLabel("Password").fill(RELIEF_PASSWORD);
  await dialog.getByLabel("Role").selectOption({ label: "Night watch" });
  await dialog.getByRole("button", { name: "Create" }).click();
  await page.getByRole("row").filter({ hasText: RELIEF }).getByText("Night watch").waitFor();
  said("a user gets the role");
}

async function refuseTaken(page) {
  await page.getByRole("button", { name: "New role" }).click();
  const dialog = page.getByRole("dialog", { name: "New role" });
  await dialog.getByLabel("Name", { exact: true }).fill("Another one");
  await box(dialog, "roles.view").check();
  await dialog.getByLabel("Id", { exact: true }).fill("NIGHT-watch");
  await dialog.getByText("There is a role with this id.").waitFor();
  if (await dialog.getByRole("button", { name: "Create" }).isEnabled()) throw new Error("a role that is there can be written over as a new one");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  said("a new role does not take the place of one that is there");
}

async function refuseDelete(page) {
  await role(page).getByRole("button", { name: "Delete" }).click();
  const dialog = page.getByRole("dialog", { name: "Delete role Night watch?" });
  await dialog.getByRole("button", { name: "Delete" }).click();
  await dialog.getByText(/in use by 1 user/).waitFor();
  await dialog.getByRole("button", { name: "Cancel" }).click();
  said("a role that somebody has is not deleted, and the dialog says how many have it");
}

async function tryRole(page, mayCreate) {
  await page.context().clearCookies();
  await signIn(page, RELIEF, RELIEF_PASSWORD);
  await page.goto(`${given.base}/devices`);
  await page.getByRole("link", { name: "Press 1", exact: true }).waitFor();
  const create = page.getByRole("link", { name: "New device" }).or(page.getByRole("button", { name: "New device" }));
  if (mayCreate) await create.first().waitFor();
  else if ((await create.count()) > 0) throw new Error("New device is offered to who may only see devices");
  const answer = await page.request.put(`${given.base}/api/devices/press-2?api-version=2022-07-31`, { data: { displayName: "Press 2" } });
  if (answer.status() !== (mayCreate ? 200 : 403)) throw new Error(`adding a device answered ${answer.status()}`);
  await page.context().clearCookies();
  await signIn(page);
}

async function changeRole(page) {
  await page.goto(`${given.base}/administration/users`);
  await role(page).getByRole("button", { name: "Change" }).click();
  const dialog = page.getByRole("dialog", { name: "Role Night watch" });
  for (const permission of ["deviceInstances.update", "deviceInstances.create"]) await box(dialog, permission).check();
  await dialog.getByRole("button", { name: "Change the role" }).click();
  await dialog.waitFor({ state: "hidden" });
  await role(page).getByText(/deviceInstances\.create/).waitFor();
}

async function deleteBoth(page) {
  await page.goto(`${given.base}/administration/users`);
  await api(page, "DELETE", `/api/users/${RELIEF}?api-version=2022-07-31`);
  await page.reload();
  await role(page).getByRole("button", { name: "Delete" }).click();
  const dialog = page.getByRole("dialog", { name: "Delete role Night watch?" });
  await dialog.getByRole("button", { name: "Delete" }).click();
  await role(page).waitFor({ state: "hidden" });
  said("once nobody has it, it is deleted");
}

inBrowser("roles", async (page) => {
  await signIn(page);
  await api(page, "PUT", "/api/devices/press-1?api-version=2022-07-31", { displayName: "Press 1" });
  await makeRole(page);
  await give(page);
  await refuseTaken(page);
  await refuseDelete(page);
  await tryRole(page, false);
  said("who has it sees the devices, and is offered and allowed nothing else");
  await changeRole(page);
  await tryRole(page, true);
  said("a permission that was added counts at once");
  await deleteBoth(page);
});
