// One event stream per page. It resumes with the last id it saw; when central can't resume it, the page reads again what it shows.

import { untrack } from "svelte";
import { addressOf } from "./api";
import { clock } from "./clock.svelte";
import { EventParser, type ServerEvent } from "./sse";
import type { State } from "./types";

export type TelemetryEvent = {
  device: string;
  module: string | null;
  component: string | null;
  at: string;
  enqueuedAt: string;
  values: Record<string, unknown>;
  undecodable?: boolean;
  message: number;
};
export type StateEvent = { device: string; state: State | null };
export type CommandEvent = {
  device: string;
  module: string | null;
  id: string;
  name: string;
  status: string;
};
export type PropertiesEvent = {
  device: string;
  module: string | null;
  section: "desired" | "reported";
  version: number;
};
export type LiveEvents = {
  telemetry: TelemetryEvent;
  state: StateEvent;
  command: CommandEvent;
  properties: PropertiesEvent;
  /** Events may be missing: read again. */
  resync: null;
};
type Listener = { [Name in keyof LiveEvents]?: (event: LiveEvents[Name]) => void };

/** central sends a comment each 15 s; two missing ones and a bit mean that the stream is dead though TCP has not noticed. */
const SILENCE_MAX_MS = 36_000;
/** A stream that is back within this was never gone for the operator. */
const GRACE_MS = 5_000;
const WAIT_MS_MAX = 15_000;

class Live {
  /** `idle` until someone listens. */
  status = $state<"idle" | "connecting" | "open" | "waiting">("idle");
  /** When the last byte came, of central's time. */
  lastHeard = $state(0);
  /** When the stream went, or null while it is open. */
  goneSince = $state<number | null>(null);
  nextTryAt = $state<number | null>(null);

  #devices: string[] = [];
  #listeners = new Set<Listener>();
  #lastId = "";
  #attempt = 0;
  #abort: AbortController | null = null;
  #wake: (() => void) | null = null;

  /** Whether values on the screen may be old without anybody knowing. */
  get isLost(): boolean {
    return this.goneSince !== null && clock.now - this.goneSince > GRACE_MS;
  }

  /** Listens while a page is open: to some devices with their telemetry, or with `[]` to the state of the whole fleet. A part of a
   * page names none and hears what its page asked for. */
  listen(listener: Listener, devices?: string[]): () => void {
    this.#listeners.add(listener);
    // Effects listen; they must not run again when the stream opens or goes.
    untrack(() => {
      const isOther = devices !== undefined && devices.join("\n") !== this.#devices.join("\n");
      if (!isOther && this.status !== "idle") return;
      this.#devices = devices ?? [];
      this.#lastId = "";
      this.#restart();
    });
    return () => {
      this.#listeners.delete(listener);
    };
  }

  stop(): void {
    this.#abort?.abort();
    this.#abort = null;
    this.status = "idle";
    this.goneSince = null;
    this.nextTryAt = null;
    this.#lastId = "";
  }

  tryNow(): void {
    this.#wake?.();
  }

  #restart(): void {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.#attempt = 0;
    void this.#run(abort.signal);
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.status = "connecting";
      this.nextTryAt = null;
      try {
        await this.#readOnce(signal);
      } catch {
        // Refused, broken or silent: all the same, it is tried again.
      }
      if (signal.aborted) return;
      this.goneSince ??= clock.exact();
      this.status = "waiting";
      const wait = Math.min(WAIT_MS_MAX, 500 * 2 ** this.#attempt);
      this.#attempt += 1;
      this.nextTryAt = clock.exact() + wait;
      await this.#pause(wait, signal);
    }
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wake = null;
        removeEventListener("online", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#wake = done;
      addEventListener("online", done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  async #readOnce(outer: AbortSignal): Promise<void> {
    const silence = new AbortController();
    const signal = AbortSignal.any([outer, silence.signal]);
    let timer = setTimeout(() => silence.abort(), SILENCE_MAX_MS);
    try {
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      const isResumed = this.#lastId !== "";
      if (isResumed) headers["Last-Event-ID"] = this.#lastId;
      const address = addressOf("/api/ext/events", { device: this.#devices });
      const response = await fetch(address, {
        headers,
        credentials: "same-origin",
        signal,
        cache: "no-store",
      });
      if (!response.ok || !response.body)
        throw new Error(`central answered the event stream with ${response.status}`);
      this.#opened(isResumed);
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MAX_MS);
        this.lastHeard = clock.exact();
        const events = parser.take(value);
        if (parser.lastId) this.#lastId = parser.lastId;
        for (const event of events) this.#take(event);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #opened(isResumed: boolean): void {
    const wasGone = this.goneSince !== null;
    this.status = "open";
    this.goneSince = null;
    this.#attempt = 0;
    this.lastHeard = clock.exact();
    // Nothing to resume from, though something was missed.
    if (wasGone && !isResumed) this.#tell("resync", null);
  }

  #take(event: ServerEvent): void {
    if (event.type === "resync") {
      this.#tell("resync", null);
      return;
    }
    if (!(event.type in KNOWN)) return;
    try {
      this.#tell(event.type as keyof LiveEvents, JSON.parse(event.data));
    } catch {
      // An event that can't be read is one that was missed.
      this.#tell("resync", null);
    }
  }

  #tell<Name extends keyof LiveEvents>(name: Name, event: LiveEvents[Name]): void {
    for (const listener of [...this.#listeners]) listener[name]?.(event);
  }
}

const KNOWN: Record<keyof LiveEvents, true> = {
  telemetry: true,
  state: true,
  command: true,
  properties: true,
  resync: true,
};

export const live = new Live();
