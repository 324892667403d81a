import type { PermissionId, Role, User } from "./types";

type Assignment = User["roles"][number];

/** The assignment that a dialog shows: the first one for the whole site. */
export function shownAssignment(roles: Assignment[]): Assignment | undefined {
  return roles.find((assigned) => !assigned.organization);
}

/** All assignments with another role in place of the shown one: roles add up, and the others stay. */
export function withRole(roles: Assignment[], role: string): Assignment[] {
  const shown = shownAssignment(roles);
  if (!shown) return [...roles, { role }];
  return roles.map((assigned) => (assigned === shown ? { role } : assigned));
}

/** The names of all roles of a user or token, with the organization of those that have one. */
export function roleNames(assigned: Assignment[], roles: Role[]): string {
  const name = ({ role, organization }: Assignment) => {
    const named = roles.find((one) => one.id === role)?.displayName ?? role;
    return organization ? `${named} in ${organization}` : named;
  };
  return assigned.map(name).join(", ");
}

/** The permissions by their area, which is the first half of an id, in the order in which central has them. */
export function byArea(ids: PermissionId[]): { area: string; ids: PermissionId[] }[] {
  const areas = new Map<string, PermissionId[]>();
  for (const id of ids) {
    const area = id.split(".")[0] ?? id;
    areas.set(area, [...(areas.get(area) ?? []), id]);
  }
  return [...areas].map(([area, ids]) => ({ area, ids }));
}
