// Enrolment groups as central is asked for them: the same writes run and are shown as curl.

import { patch, put } from "./api";
import type { Write } from "./curl";

export type GroupKind = "iot" | "iotEdge";
export type Attestation = "symmetricKey" | "x509";
export type Entry = "primary" | "secondary";

/** A row of the list: without keys, with what its devices are. */
export type GroupRow = {
  id: string;
  displayName: string;
  enabled: boolean;
  type: GroupKind;
  attestation: Attestation;
  autoApprove: boolean;
  certificates: { uploaded: number; verified: number } | null;
  devices: number;
  waiting: number;
};
export type Certificate = { verified: boolean; etag: string; info: { sha1Thumbprint: string } };
export type Group = {
  id: string;
  displayName: string;
  enabled: boolean;
  type: GroupKind;
  attestation: {
    type: Attestation;
    symmetricKey?: { primaryKey: string; secondaryKey: string };
    x509?: { signingCertificates: { [Name in Entry]?: Certificate } };
  };
  etag: string;
  idScope: string;
  gateways?: string[];
};

export const KIND_WORDS: Record<GroupKind, string> = { iot: "IoT devices", iotEdge: "IoT Edge devices" };
export const ATTESTATION_WORDS: Record<Attestation, string> = {
  symmetricKey: "Shared access signature (SAS)",
  x509: "Certificates (X.509)",
};

export function groupPath(id: string, rest = ""): string {
  return `/api/enrollmentGroups/${encodeURIComponent(id)}${rest}`;
}
export function approvalPath(id: string): string {
  return `/api/ext/enrollmentGroups/${encodeURIComponent(id)}/approval`;
}
export function certificatePath(id: string, entry: Entry, rest = ""): string {
  return groupPath(id, `/certificates/${entry}${rest}`);
}

/** The id that a name suggests. */
export function idOfName(name: string): string {
  const ascii = name
    .trim()
    .normalize("NFKD")
    .replace(/[\u0300-\u036f]/g, "");
  return ascii
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .toLowerCase()
    .slice(0, 128);
}

/** What is wrong with the id of a group; null when nothing is. */
export function groupIdError(id: string): string | null {
  if (!id) return "Write an id: scripts name the group by it.";
  if (id.length > 128) return `It has ${id.length} characters; at most 128.`;
  const wrong = /[^A-Za-z0-9._-]/.exec(id)?.[0];
  return wrong ? `“${wrong}” can't be part of an id; letters, digits and - _ . can.` : null;
}

export type NewGroup = {
  id: string;
  displayName: string;
  type: GroupKind;
  attestation: Attestation;
  autoApprove: boolean;
};

/** A group that does not approve begins disabled, or a device could enrol before it is told so. */
export function createWrite(group: NewGroup): Write {
  const { id, displayName, type, attestation, autoApprove } = group;
  const body = {
    displayName: displayName || id,
    type,
    enabled: autoApprove,
    attestation: { type: attestation },
  };
  return { method: "PUT", path: groupPath(id), body };
}

/** What is left to do behind [`createWrite`]. */
export async function finishCreation(group: NewGroup): Promise<void> {
  if (group.autoApprove) return;
  await put(approvalPath(group.id), { autoApprove: false });
  await patch(groupPath(group.id), { enabled: true });
}

/** A key that nobody has had before, base64. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return btoa(String.fromCharCode(...bytes));
}

/** A certificate's file as central takes it: text as it is, DER in base64. */
export async function certificateText(file: Blob): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const text = new TextDecoder().decode(bytes);
  if (text.includes("-----BEGIN")) return text;
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** One word for the certificates of a group. */
export function verificationOf(row: GroupRow): { tone: "ok" | "warn" | "unk"; word: string } | null {
  if (!row.certificates) return null;
  if (row.certificates.uploaded === 0) return { tone: "warn", word: "No certificate" };
  return row.certificates.verified > 0
    ? { tone: "ok", word: "Verified" }
    : { tone: "warn", word: "Not verified" };
}
