// Keys of the whole console. A page adds its own while it is open; none works while the operator writes.

import { untrack } from "svelte";

export type Binding = {
  /** `d`, `Enter`, `?`, or two keys one after the other: `g d`. */
  keys: string;
  says: string;
  run: () => void;
};

/** How long the second key of a pair may take. */
const PAIR_MS = 1500;

class Keys {
  /** What the help shows, by the part of the page that it belongs to. */
  groups = $state.raw<{ title: string; bindings: Binding[] }[]>([]);
  #first: { key: string; at: number } | null = null;

  start(): () => void {
    const onKey = (event: KeyboardEvent) => this.#press(event);
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }

  add(title: string, bindings: Binding[]): () => void {
    const group = { title, bindings };
    // Effects add groups; an effect that read them would run again for its own change.
    untrack(() => {
      this.groups = [...this.groups, group];
    });
    return () => {
      untrack(() => {
        this.groups = this.groups.filter((other) => other !== group);
      });
    };
  }

  #press(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isWriting(event.target))
      return;
    if (document.querySelector("dialog[open]")) return;
    // A button that has the focus is what Enter presses, not the row under the cursor.
    if (event.key === "Enter" && isPressable(event.target)) return;
    const now = event.timeStamp;
    const pair = this.#first && now - this.#first.at < PAIR_MS ? `${this.#first.key} ${event.key}` : null;
    this.#first = null;
    const found = (pair && this.#find(pair)) || this.#find(event.key);
    if (found) {
      event.preventDefault();
      found.run();
    } else if (this.#startsPair(event.key)) {
      this.#first = { key: event.key, at: now };
    }
  }

  /** The page's own bindings were added last and win. */
  #find(keys: string): Binding | undefined {
    return [...this.groups]
      .reverse()
      .flatMap((group) => group.bindings)
      .find((binding) => binding.keys === keys);
  }

  #startsPair(key: string): boolean {
    return this.groups.some((group) => group.bindings.some((binding) => binding.keys.startsWith(`${key} `)));
  }
}

function isWriting(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target.shadowRoot !== null) return true;
  if (target instanceof HTMLInputElement)
    return !["checkbox", "radio", "button", "submit"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

function isPressable(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("a[href], button, summary") !== null;
}

export const keys = new Keys();
