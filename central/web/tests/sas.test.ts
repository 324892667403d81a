/// <reference types="node" />
import { createHash, createHmac, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { hmacSha256, sasToken, sha256 } from "../src/lib/sas";

test("SHA-256 is that of OpenSSL for every length around a block", () => {
  for (let length = 0; length < 200; length += 1) {
    const message = randomBytes(length);
    expect(Buffer.from(sha256(message)).toString("hex")).toBe(
      createHash("sha256").update(message).digest("hex"),
    );
  }
});

test("HMAC is that of OpenSSL for keys shorter and longer than a block", () => {
  for (const length of [0, 1, 32, 63, 64, 65, 200]) {
    const [key, message] = [randomBytes(length), randomBytes(100)];
    expect(Buffer.from(hmacSha256(key, message)).toString("hex")).toBe(
      createHmac("sha256", key).update(message).digest("hex"),
    );
  }
});

test("a token signs the encoded resource and its expiry, as Azure's SDKs do", () => {
  const key = Buffer.alloc(32, 7).toString("base64");
  const token = sasToken("central.example:8884", "press 4+", key, 1_800_000_000);
  const resource = "central.example%3A8884%2Fdevices%2Fpress%204%2B";
  const signature = createHmac("sha256", Buffer.alloc(32, 7))
    .update(`${resource}\n1800000000`)
    .digest("base64");
  expect(token).toBe(
    `SharedAccessSignature sr=${resource}&sig=${encodeURIComponent(signature)}&se=1800000000`,
  );
});
