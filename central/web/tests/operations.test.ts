import { describe, expect, it } from "vitest";
import { faultsFile, textOf } from "../src/lib/operations.svelte";

describe("faultsFile", () => {
  it("has the line, the device and the reason, quoted where a reader could take it for something else", () => {
    const faults = [
      { line: 3, device: "a", why: 'found "x", write y' },
      { line: 12, device: null, why: "IOTC_DEVICEID is empty" },
    ];
    expect(faultsFile(faults)).toBe(
      '\u{feff}line,IOTC_DEVICEID,error\r\n3,a,"found ""x"", write y"\r\n12,,IOTC_DEVICEID is empty\r\n',
    );
  });

  it("has no formula", () => {
    const faults = [{ line: 2, device: "=1+1", why: "@x is registered already" }];
    expect(faultsFile(faults)).toContain("\r\n2,'=1+1,'@x is registered already\r\n");
  });
});

describe("textOf", () => {
  it("reads UTF-8 with its mark, and UTF-16 as spreadsheets save it", async () => {
    const utf16 = new Uint8Array([0xff, 0xfe, 0x61, 0, 0xe4, 0]);
    expect(await textOf(new Blob([utf16]))).toBe("aä");
    expect(await textOf(new Blob(["\u{feff}aä"]))).toBe("aä");
  });

  it("refuses other encodings rather than import broken names", async () => {
    await expect(textOf(new Blob([new Uint8Array([0x61, 0xe4])]))).rejects.toThrow("not UTF-8");
  });
});
