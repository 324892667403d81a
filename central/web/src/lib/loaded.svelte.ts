// What a page reads from central when it opens: read again when what it depends on changes, given up when the page is left.

import { isAborted } from "./api";

export class Loaded<T> {
  value = $state.raw<T | null>(null);
  error = $state.raw<unknown>(null);
  #abort: AbortController | null = null;

  constructor(readonly read: (signal: AbortSignal) => Promise<T>) {}

  /** Reads again; what was read before stays until the answer is here. */
  async again(): Promise<void> {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    try {
      const value = await this.read(abort.signal);
      if (abort.signal.aborted) return;
      this.value = value;
      this.error = null;
    } catch (caught) {
      if (!isAborted(caught) && !abort.signal.aborted) this.error = caught;
    }
  }

  stop(): void {
    this.#abort?.abort();
  }
}

/** Reads while the component that calls this is there. What `read` uses before its first request is what it depends on. */
export function loaded<T>(read: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const it = new Loaded(read);
  $effect(() => {
    void it.again();
    return () => it.stop();
  });
  return it;
}
