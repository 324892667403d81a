// The overview, as central gives it. A central without that path still has the states of all devices: they stand in for it.

import { ApiError, get } from "./api";
import { clock } from "./clock.svelte";
import type { GridCounts, GridPage, GridRow, Need, OverviewAnswer, Verdict } from "./types";

const SHOWN_MAX = 50;
const NOT_WELL: Verdict[] = ["offline", "degraded", "waiting"];

let isThere: boolean | null = null;

export async function overview(signal?: AbortSignal): Promise<OverviewAnswer> {
  if (isThere !== false) {
    try {
      const answer = await get<OverviewAnswer>("/api/ext/overview", {}, signal);
      isThere = true;
      return answer;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      isThere = false;
    }
  }
  return fromStates(signal);
}

async function fromStates(signal?: AbortSignal): Promise<OverviewAnswer> {
  const counts = (kind: string) => get<GridCounts>("/api/ext/grid/counts", { kind }, signal);
  const rows = (verdict: string) =>
    get<GridPage>("/api/ext/grid", { kind: "all", verdict, sort: "lastSeen", limit: SHOWN_MAX }, signal);
  const [devices, gateways, ...pages] = await Promise.all([
    counts("devices"),
    counts("gateways"),
    ...NOT_WELL.map(rows),
  ]);
  return {
    counts: { devices: devices.byVerdict, gateways: gateways.byVerdict },
    needsYou: pages.flatMap((page) => page.value).map(needOf),
    ingest: null,
    storage: null,
    changes: [],
  };
}

function needOf(row: GridRow): Need {
  return {
    device: row.id,
    displayName: row.displayName,
    kind: row.kind,
    state: row.state,
    since: row.state.since ?? new Date(clock.exact()).toISOString(),
    causeId: "",
    sentence:
      row.state.reason ??
      (row.state.verdict === "offline" ? "It is not connected." : "It waits for your approval."),
    group: row.state.verdict === "offline" || row.kind === "gateway" ? "now" : "later",
    hidden: row.state.verdict === "offline" ? row.children : 0,
  };
}
