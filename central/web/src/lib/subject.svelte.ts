// The device or gateway of a page: what central says of it now, kept right by the event stream.

import { devicePath, extDevicePath, get, isAborted } from "./api";
import { type LiveEvents, live } from "./live.svelte";
import type { Device, DeviceStatus, GridPage, GridRow, State } from "./types";

type Handlers = { [Name in keyof LiveEvents]?: (event: LiveEvents[Name]) => void };

export class Subject {
  device = $state.raw<Device | null>(null);
  status = $state.raw<DeviceStatus | null>(null);
  row = $state.raw<GridRow | null>(null);
  error = $state<unknown>(null);
  isDeleted = $state(false);
  #state = $state.raw<State | null>(null);
  #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly id: string) {}

  get state(): State | null {
    return this.#state;
  }

  get name(): string {
    return this.device?.displayName ?? this.row?.displayName ?? this.id;
  }

  async load(): Promise<void> {
    const { signal } = this.#abort;
    try {
      const [device, status] = await Promise.all([
        get<Device>(devicePath(this.id), {}, signal),
        get<DeviceStatus>(extDevicePath(this.id, "/status"), {}, signal),
      ]);
      this.device = device;
      this.status = status;
      if (status.state) this.#state = status.state;
      this.error = null;
    } catch (error) {
      if (!isAborted(error)) this.error = error;
      return;
    }
    // The list's row has what neither of these has: the gateway's manifest and children.
    try {
      const page = await get<GridPage>("/api/ext/grid", { search: this.id, limit: 50, sort: "id" }, signal);
      this.row = page.value.find((row) => row.id === this.id) ?? null;
      if (!this.status?.state && this.row) this.#state = this.row.state;
    } catch {
      // The page stands without it.
    }
  }

  /** Listens to this device, telemetry included. */
  listen(handlers: Handlers): () => void {
    return live.listen(
      {
        ...handlers,
        state: (event) => {
          if (event.device === this.id) this.#onState(event.state);
          handlers.state?.(event);
        },
        resync: (event) => {
          void this.load();
          handlers.resync?.(event);
        },
      },
      [this.id],
    );
  }

  #onState(state: State | null): void {
    this.isDeleted = state === null;
    if (state) this.#state = state;
    // The report behind it changed too; several events of one moment are one reading.
    clearTimeout(this.#timer);
    if (state) this.#timer = setTimeout(() => void this.load(), 300);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }
}
