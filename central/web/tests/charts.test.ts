import { expect, test } from "vitest";
import { append, noPoints, pointsOf, trim } from "../src/lib/charts";
import type { Series } from "../src/lib/types";

function series(t: number[]): Series {
  const v = t.map((at) => at / 1000);
  return { name: "x", t, min: v, avg: v, max: v, last: v, count: t.map(() => 1) };
}

test("a line has a gap where values are missing, and none where they come evenly", () => {
  const even = pointsOf(series([0, 1000, 2000, 3000, 4000]), 1000);
  expect(even.v).toEqual([0, 1, 2, 3, 4]);
  const broken = pointsOf(series([0, 1000, 2000, 60_000, 61_000]), 1000);
  expect(broken.v).toEqual([0, 1, 2, null, 60, 61]);
  expect(broken.t).toEqual([...broken.t].sort((one, other) => one - other));
});

test("a device that sends every minute has no gaps in buckets of a second", () => {
  expect(pointsOf(series([0, 60_000, 120_000, 180_000]), 1000).v).toEqual([0, 60, 120, 180]);
});

test("a value that comes live is added behind the last one; a late one is not", () => {
  const points = pointsOf(series([0, 1000, 2000]), 1000);
  append(points, 3000, 7, 1000);
  append(points, 1500, 99, 1000);
  expect(points.v).toEqual([0, 1, 2, 7]);
  append(points, 60_000, 8, 1000);
  expect(points.v).toEqual([0, 1, 2, 7, null, 8]);
});

test("what has left the range is dropped, but for the point from which the line enters", () => {
  const points = pointsOf(series([0, 1000, 2000, 3000]), 1000);
  trim(points, 2000);
  expect(points.t).toEqual([1, 2, 3]);
  const none = noPoints();
  trim(none, 2000);
  expect(none.t).toEqual([]);
});
