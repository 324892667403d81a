import { describe, expect, it } from "vitest";
import cases from "../../core/tests/csv_fields.json";
import { csvField } from "../src/lib/csv";

describe("csvField", () => {
  it("writes texts as central does: guarded where a spreadsheet would calculate, quoted where a reader could err", () => {
    for (const { text, written } of cases) expect(csvField(text), JSON.stringify(text)).toBe(written);
  });

  it("leaves numbers as numbers", () => {
    expect([-1, 0, 2.5, -1e-7].map(csvField)).toEqual(["-1", "0", "2.5", "-1e-7"]);
  });
});
