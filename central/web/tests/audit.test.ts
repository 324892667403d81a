import { expect, test } from "vitest";
import { auditSentence } from "../src/lib/audit";
import type { AuditRow } from "../src/lib/types";

const row = (more: Partial<AuditRow>): AuditRow => ({
  id: 1,
  at: "",
  who: "x",
  whoKind: "user",
  kind: "updated",
  method: "PATCH",
  path: null,
  status: 200,
  address: null,
  before: null,
  after: null,
  ...more,
});

test.each<[Partial<AuditRow>, string]>([
  [{ kind: "signIn", method: "POST", path: "/api/ext/session" }, "signed in"],
  [{ kind: "refused", method: "POST", path: "/api/ext/session", status: 401 }, "was refused at sign-in"],
  [{ kind: "setup", method: "POST", path: "/api/ext/setup" }, "set up central"],
  [{ path: "/api/devices/a%20b", before: { enabled: true }, after: { enabled: false } }, "blocked a b"],
  [{ path: "/api/devices/a", before: { enabled: false }, after: { enabled: true } }, "unblocked a"],
  [{ method: "PUT", kind: "created", path: "/api/devices/a" }, "added a"],
  [{ method: "PUT", path: "/api/devices/a" }, "changed a"],
  [{ method: "DELETE", path: "/api/devices/a" }, "deleted a"],
  [
    { method: "POST", path: "/api/devices/a/commands/reboot", status: 504 },
    "ran reboot on a, refused with 504",
  ],
  [{ method: "POST", path: "/api/devices/g/modules/m/commands/go" }, "ran go on g/m"],
  [{ method: "GET", kind: "read", path: "/api/ext/devices/g/modules/m/logs" }, "read the log of g/m"],
  [{ method: "POST", path: "/api/devices/g/applyDeploymentManifest" }, "assigned a manifest to g"],
  [{ method: "PUT", path: "/api/deploymentManifests/line" }, "wrote manifest line"],
  [{ method: "DELETE", path: "/api/apiTokens/ci" }, "revoked token ci"],
  [{ method: "POST", path: "/api/unheard/of" }, "added /api/unheard/of"],
  [{ path: "/api/devices/%", method: "DELETE" }, "deleted %"],
])("%o", (given, sentence) => {
  expect(auditSentence(row(given))).toBe(sentence);
});
