// Points of charts: buckets that central made, and what came since over the event stream.

import type { LastValue, Series } from "./types";

export type Points = { t: number[]; v: (number | null)[]; min: (number | null)[]; max: (number | null)[] };

export const noPoints = (): Points => ({ t: [], v: [], min: [], max: [] });

/** The name with where it comes from: a gateway's modules and a device's components may use one name each. */
export function keyOf(of: { module: string | null; component: string | null; name: string }): string {
  return [of.module ?? "", of.component ?? "", of.name].join("/");
}

/** The time between two points above which there is a gap: far more than they usually are apart. */
function gapMs(t: number[], stepMs: number): number {
  const steps: number[] = [];
  for (let at = 1; at < t.length; at += 1) steps.push((t[at] as number) - (t[at - 1] as number));
  steps.sort((one, other) => one - other);
  const median = steps[steps.length >> 1] ?? stepMs;
  return Math.max(stepMs, median) * 3.5;
}

/** Buckets as points in seconds, with a null where there is a gap: a line must not lead over hours of silence. */
export function pointsOf(series: Series | undefined, stepMs: number): Points {
  const points = noPoints();
  if (!series) return points;
  const limit = gapMs(series.t, stepMs);
  series.t.forEach((at, index) => {
    const before = series.t[index - 1];
    if (before !== undefined && at - before > limit) push(points, before + limit / 2, null, null, null);
    push(points, at, series.avg[index] ?? null, series.min[index] ?? null, series.max[index] ?? null);
  });
  return points;
}

function push(points: Points, ms: number, v: number | null, min: number | null, max: number | null): void {
  points.t.push(ms / 1000);
  points.v.push(v);
  points.min.push(min);
  points.max.push(max);
}

/** Adds a value that has just come. Late ones are left to the next reading: a line can't go back. */
export function append(points: Points, ms: number, value: number, stepMs: number): void {
  const seconds = ms / 1000;
  const last = points.t.at(-1);
  if (last !== undefined && seconds <= last) return;
  if (
    last !== undefined &&
    ms - last * 1000 >
      gapMs(
        points.t.slice(-20).map((t) => t * 1000),
        stepMs,
      )
  ) {
    push(points, (last * 1000 + ms) / 2, null, null, null);
  }
  push(points, ms, value, value, value);
}

/** Drops what has left the range. */
export function trim(points: Points, fromMs: number): void {
  const from = fromMs / 1000;
  const keep = points.t.findIndex((t) => t >= from);
  if (keep <= 0) return;
  // One point before the edge, so that the line enters from there.
  for (const list of [points.t, points.v, points.min, points.max]) list.splice(0, keep - 1);
}

/** Names in the order that an operator looks for them: the device's own first, then by module and name. */
export function inOrder(values: LastValue[]): LastValue[] {
  return [...values].sort((one, other) => keyOf(one).localeCompare(keyOf(other)));
}
