import { expect, test } from "vitest";
import { auditSentence } from "../src/lib/audit";
import {
  certificateText,
  createWrite,
  groupIdError,
  idOfName,
  newKey,
  verificationOf,
} from "../src/lib/groups";
import type { AuditRow } from "../src/lib/types";

test("a name suggests an id that central takes", () => {
  const ids = ["Line 4", "  Prüfstand / Öl  ", "a.b_c-d", "日本", "x".repeat(200)].map(idOfName);
  expect(ids).toEqual(["line-4", "prufstand-ol", "a.b_c-d", "", "x".repeat(128)]);
  for (const id of ids.filter(Boolean)) expect(groupIdError(id)).toBeNull();
  expect(groupIdError("")).toContain("Write an id");
  expect(groupIdError("a b")).toContain("can't be part");
  expect(groupIdError("x".repeat(129))).toContain("129");
});

test("a group that does not approve is not enabled before it is told so", () => {
  const group = { id: "g", displayName: "", type: "iot", attestation: "x509", autoApprove: false } as const;
  const expected = { displayName: "g", type: "iot", enabled: false, attestation: { type: "x509" } };
  expect(createWrite(group).body).toEqual(expected);
  expect(createWrite({ ...group, autoApprove: true }).body).toEqual({ ...expected, enabled: true });
});

test("new keys have 32 bytes, and no two are the same", () => {
  const keys = Array.from({ length: 20 }, newKey);
  expect(new Set(keys).size).toBe(20);
  for (const key of keys) expect(atob(key).length).toBe(32);
});

test("a certificate is sent as it stands in PEM, and in base64 of DER", async () => {
  const pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
  expect(await certificateText(new Blob([pem]))).toBe(pem);
  expect(await certificateText(new Blob([new Uint8Array([0x30, 0x82, 0, 255])]))).toBe("MIIA/w==");
});

test("the certificates of a group are one word", () => {
  const row = (certificates: { uploaded: number; verified: number } | null) =>
    verificationOf({ certificates } as Parameters<typeof verificationOf>[0])?.word;
  const rows = [null, [0, 0], [1, 0], [2, 1]] as const;
  const words = rows.map((one) => row(one && { uploaded: one[0], verified: one[1] }));
  expect(words).toEqual([undefined, "No certificate", "Not verified", "Verified"]);
});

test("the audit log tells who was approved and rejected", () => {
  const row = { kind: "action", method: "POST", status: 200, before: null, after: null };
  const sentence = (path: string) => auditSentence({ ...row, path } as AuditRow);
  expect(sentence("/api/ext/devices/press-1/approve")).toBe("approved press-1");
  expect(sentence("/api/ext/devices/press-1/reject")).toBe("rejected press-1");
  expect(sentence("/api/ext/enrollmentGroups/line-4/approval")).toBe(
    "changed how enrolment group line-4 approves",
  );
});
