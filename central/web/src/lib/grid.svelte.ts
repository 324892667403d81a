// The rows of the devices' list: pages by cursor, changed in place by the event stream, never moved under the operator.

import { get, isAborted, type Query } from "./api";
import type { StateEvent } from "./live.svelte";
import type { GridCounts, GridPage, GridRow } from "./types";

export type GridQuery = {
  kind: "all" | "devices" | "gateways";
  search: string;
  verdict: string;
  template: string;
  gateway: string;
  sort: string;
  order: string;
};

const PAGE_ROWS = 200;

/** The filters as central takes them: what is not filtered is left out, and no template is an empty one. */
export function filtersOf(query: GridQuery): Query {
  return {
    kind: query.kind,
    search: query.search || null,
    verdict: query.verdict || null,
    template: query.template === "none" ? "" : query.template || null,
    gateway: query.gateway || null,
  };
}

export function rowsOf(query: GridQuery): Query {
  return { ...filtersOf(query), sort: query.sort, order: query.order, limit: PAGE_ROWS };
}

export class Grid {
  rows = $state.raw<GridRow[]>([]);
  /** Of all filters. */
  counts = $state.raw<GridCounts | null>(null);
  /** Of the kind alone: what the filters could be. */
  all = $state.raw<GridCounts | null>(null);
  error = $state<unknown>(null);
  isLoading = $state(true);
  hasMore = $state(false);
  /** Devices that the list may lack since it was read. */
  fresh = $state.raw<ReadonlySet<string>>(new Set());

  #cursor: string | null = null;
  #query: GridQuery | null = null;
  #abort: AbortController | null = null;
  #isPaging = false;
  #countTimer: ReturnType<typeof setTimeout> | undefined;

  /** Reads the first rows of a query. The former rows stay until these are here. */
  async load(query: GridQuery): Promise<void> {
    this.#query = query;
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.isLoading = true;
    this.#isPaging = false;
    try {
      const [page] = await Promise.all([
        get<GridPage>("/api/ext/grid", rowsOf(query), abort.signal),
        this.#count(abort.signal),
      ]);
      this.#take(page.value, page.nextCursor);
      this.error = null;
      this.fresh = new Set();
      this.isLoading = false;
    } catch (error) {
      if (isAborted(error)) return;
      this.error = error;
      this.isLoading = false;
    }
  }

  again(): Promise<void> {
    return this.#query ? this.load(this.#query) : Promise.resolve();
  }

  async more(): Promise<void> {
    if (!this.#cursor || this.#isPaging || this.isLoading || !this.#query) return;
    this.#isPaging = true;
    const signal = this.#abort?.signal;
    try {
      const query = { ...rowsOf(this.#query), cursor: this.#cursor };
      const page = await get<GridPage>("/api/ext/grid", query, signal);
      const known = new Set(this.rows.map((row) => row.id));
      this.#take([...this.rows, ...page.value.filter((row) => !known.has(row.id))], page.nextCursor);
    } catch (error) {
      if (!isAborted(error)) this.error = error;
    } finally {
      this.#isPaging = false;
    }
  }

  /** Takes a device's new state into its row, where it stands. */
  onState(event: StateEvent): void {
    const at = this.rows.findIndex((row) => row.id === event.device);
    const row = this.rows[at];
    if (!row) {
      // A list that is not read to its end lacks most devices anyway; only one that was just added is news.
      const isNew = event.state !== null && (!this.hasMore || event.state.connectivity === "never");
      if (isNew) this.fresh = new Set([...this.fresh, event.device]);
    } else if (event.state === null) {
      this.rows = this.rows.filter((other) => other !== row);
    } else {
      const lastSeen =
        event.state.connectivity === "connected" ? row.lastSeen : (event.state.since ?? row.lastSeen);
      this.rows = this.rows.with(at, { ...row, state: event.state, lastSeen });
    }
    this.#countSoon();
  }

  stop(): void {
    this.#abort?.abort();
    clearTimeout(this.#countTimer);
  }

  #take(rows: GridRow[], cursor: string | null): void {
    this.rows = rows;
    this.#cursor = cursor;
    this.hasMore = cursor !== null;
  }

  async #count(signal?: AbortSignal): Promise<void> {
    const query = this.#query;
    if (!query) return;
    const [counts, all] = await Promise.all([
      get<GridCounts>("/api/ext/grid/counts", filtersOf(query), signal),
      get<GridCounts>("/api/ext/grid/counts", { kind: query.kind }, signal),
    ]);
    this.counts = counts;
    this.all = all;
  }

  #countSoon(): void {
    if (this.#countTimer) return;
    this.#countTimer = setTimeout(() => {
      this.#countTimer = undefined;
      this.#count(this.#abort?.signal).catch(() => {});
    }, 2000);
  }
}
