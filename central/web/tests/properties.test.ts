import { expect, test } from "vitest";
import { asInput, parseInput, rowsOf } from "../src/lib/properties";

const desired = (more: object) => ({ desiredValue: 5, desiredVersion: 3, ...more });

test.each([
  ["nothing is reported yet", { a: 5 }, desired({}), {}, "pending"],
  [
    "the device accepted this version",
    { a: 5 },
    desired({ ackCode: 200, ackVersion: 3 }),
    { a: {} },
    "accepted",
  ],
  [
    "the device rejected this version",
    { a: 4 },
    desired({ ackCode: 400, ackVersion: 3 }),
    { a: {} },
    "rejected",
  ],
  ["the device is at it", { a: 4 }, desired({ ackCode: 202, ackVersion: 3 }), { a: {} }, "pending"],
  ["it accepted an older version", { a: 4 }, desired({ ackCode: 200, ackVersion: 2 }), { a: {} }, "pending"],
  ["it rejected an older version", { a: 4 }, desired({ ackCode: 400, ackVersion: 2 }), { a: {} }, "pending"],
  ["it acknowledges nothing and reports the value", { a: 5 }, desired({}), { a: 5 }, "accepted"],
  ["it acknowledges nothing and reports another value", { a: 4 }, desired({}), { a: 4 }, "pending"],
  ["nobody desired anything", { a: 4 }, {}, { a: 4 }, "reported"],
])("%s", (_says, values, metadata, reported, state) => {
  const [row] = rowsOf({ ...values, $metadata: { a: metadata } }, reported);
  expect(row?.state).toBe(state);
});

test("what is written in a field comes back as it was, whatever it is", () => {
  for (const value of [
    1,
    -0.5,
    true,
    null,
    "text",
    "",
    "12",
    "true",
    " x ",
    '"q"',
    [1, "2"],
    { a: { b: [] } },
    "ü\n",
  ]) {
    expect(parseInput(asInput(value))).toEqual(value);
  }
});
