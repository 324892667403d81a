// The overview that a template gives its devices: which values, how they are shown, and in which order.

import { ApiError, get, put } from "./api";
import type { Capability, OverviewTile, OverviewTiles, Series, TemplateInterface } from "./types";

export const overviewPath = (template: string) =>
  `/api/ext/deviceTemplates/${encodeURIComponent(template)}/overview`;

/** The tiles of a template; none for a device without one, or with one that is not stored. */
export async function tilesOf(
  template: string | null | undefined,
  signal: AbortSignal,
): Promise<OverviewTile[]> {
  if (!template) return [];
  try {
    return (await get<OverviewTiles>(overviewPath(template), {}, signal)).tiles;
  } catch (caught) {
    if (caught instanceof ApiError && caught.status === 404) return [];
    throw caught;
  }
}

export const storeTiles = (template: string, tiles: OverviewTile[]) =>
  put<OverviewTiles>(overviewPath(template), { tiles });

export const TILE_KINDS: { kind: OverviewTile["kind"]; word: string; isNumeric: boolean }[] = [
  { kind: "lastValue", word: "Last value", isNumeric: false },
  { kind: "chart", word: "Chart", isNumeric: true },
  { kind: "kpi", word: "KPI of the range", isNumeric: true },
  { kind: "state", word: "State", isNumeric: false },
];
export const AGGREGATES: { id: NonNullable<OverviewTile["aggregate"]>; word: string }[] = [
  { id: "mean", word: "Mean" },
  { id: "min", word: "Least" },
  { id: "max", word: "Greatest" },
];

const NUMBERS = ["double", "float", "integer", "long"];
export const isNumeric = (capability: Capability) => NUMBERS.includes(capability.schema?.kind ?? "");

/** What devices of the model send, in its order. */
export function choices(
  interfaces: TemplateInterface[],
): { component: string | null; capability: Capability }[] {
  return interfaces.flatMap((one) =>
    one.capabilities
      .filter((capability) => capability.kind === "telemetry")
      .map((capability) => ({ component: one.component ?? null, capability })),
  );
}

export function newTile(component: string | null, capability: Capability): OverviewTile {
  return {
    kind: isNumeric(capability) ? "lastValue" : "state",
    name: capability.name,
    ...(component ? { component } : {}),
  };
}

/** Every value once, and a chart for each number behind them: what an overview is without tiles. */
export function generated(interfaces: TemplateInterface[]): OverviewTile[] {
  const all = choices(interfaces);
  const values = all.map((one) => newTile(one.component, one.capability));
  const charts = all
    .filter((one) => isNumeric(one.capability))
    .map((one) => ({ ...newTile(one.component, one.capability), kind: "chart" as const }));
  return [...values, ...charts];
}

export function moved<T>(list: T[], from: number, to: number): T[] {
  if (to < 0 || to >= list.length) return list;
  const next = [...list];
  next.splice(to, 0, ...next.splice(from, 1));
  return next;
}

/** Numbers of a range in short: exact, also of buckets. */
export type Summary = { count: number; sum: number; min: number; max: number };

export function summaryOf(series: Series | undefined): Summary {
  const summary: Summary = { count: 0, sum: 0, min: Number.POSITIVE_INFINITY, max: Number.NEGATIVE_INFINITY };
  series?.count.forEach((count, at) => {
    summary.count += count;
    summary.sum += (series.avg[at] ?? 0) * count;
    summary.min = Math.min(summary.min, series.min[at] ?? summary.min);
    summary.max = Math.max(summary.max, series.max[at] ?? summary.max);
  });
  return summary;
}

export function withNumber(summary: Summary, value: number): Summary {
  return {
    count: summary.count + 1,
    sum: summary.sum + value,
    min: Math.min(summary.min, value),
    max: Math.max(summary.max, value),
  };
}

/** Null where the range has no number. */
export function aggregated(summary: Summary | undefined, by: OverviewTile["aggregate"]): number | null {
  if (!summary || summary.count === 0) return null;
  if (by === "min") return summary.min;
  return by === "max" ? summary.max : summary.sum / summary.count;
}

/** Columns of twelve that a row lacks before each item and behind the last, so that a row has no hole. */
export function fills(spans: number[]): number[] {
  const before: number[] = [];
  let column = 0;
  for (const span of spans) {
    const isBreaking = column + span > 12;
    before.push(isBreaking ? 12 - column : 0);
    column = ((isBreaking ? 0 : column) + span) % 12;
  }
  before.push(column === 0 ? 0 : 12 - column);
  return before;
}
