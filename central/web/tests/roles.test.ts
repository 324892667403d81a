import { expect, test } from "vitest";
import { byArea, roleNames, shownAssignment, withRole } from "../src/lib/roles";
import type { Role } from "../src/lib/types";

const role = (id: string, displayName: string): Role => ({
  id,
  displayName,
  isBuiltIn: false,
  isOfOrganization: false,
  permissions: [],
  organization: "root",
});

test("another role takes the place of the shown one, and the others stay", () => {
  const inOrganization = { role: "org-viewer", organization: "seattle" };
  const roles = [inOrganization, { role: "viewer" }, { role: "night-shift" }];
  expect(shownAssignment(roles)).toEqual({ role: "viewer" });
  expect(withRole(roles, "builder")).toEqual([inOrganization, { role: "builder" }, { role: "night-shift" }]);
  expect(withRole([{ role: "viewer" }], "builder")).toEqual([{ role: "builder" }]);
  expect(withRole([inOrganization], "builder")).toEqual([inOrganization, { role: "builder" }]);
});

test("all roles of a user or token are named", () => {
  const roles = [role("viewer", "Viewer"), role("night-shift", "Night shift")];
  const assigned = [{ role: "viewer" }, { role: "night-shift", organization: "seattle" }, { role: "gone" }];
  expect(roleNames(assigned, roles)).toBe("Viewer, Night shift in seattle, gone");
});

test("permissions are grouped by their area in central's order", () => {
  expect(byArea(["roles.view", "users.view", "roles.manage"])).toEqual([
    { area: "roles", ids: ["roles.view", "roles.manage"] },
    { area: "users", ids: ["users.view"] },
  ]);
});
