// Short notices at the lower right. An error stays until it is closed; nothing that matters is said here alone.

export type Toast = { id: number; tone: "ok" | "bad" | "info"; text: string };

const SHOWN_MS = 6000;

class Toasts {
  all = $state<Toast[]>([]);
  #next = 0;

  add(tone: Toast["tone"], text: string): void {
    this.#next += 1;
    const id = this.#next;
    this.all = [...this.all.slice(-3), { id, tone, text }];
    if (tone !== "bad") setTimeout(() => this.close(id), SHOWN_MS);
  }

  close(id: number): void {
    this.all = this.all.filter((toast) => toast.id !== id);
  }
}

export const toasts = new Toasts();
