import { expect, test } from "vitest";
import { duration, parseTime } from "../src/lib/age";

test("an age has seconds to a minute, minutes to an hour, then hours with minutes, then days", () => {
  const minute = 60_000;
  expect(
    [0, 999, 59_999, minute, 59 * minute, 60 * minute, 124 * minute, 24 * 60 * minute, 75 * 60 * minute].map(
      duration,
    ),
  ).toEqual(["0 s", "0 s", "59 s", "1 min", "59 min", "1 h 00 min", "2 h 04 min", "1 d", "3 d"]);
});

test("a time ahead of the clock is no negative age", () => {
  expect(duration(-5000)).toBe("0 s");
});

test("what is no time has none", () => {
  expect([null, undefined, "", "yesterday"].map((time) => parseTime(time))).toEqual([null, null, null, null]);
});
