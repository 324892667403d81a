// central's time as well as the browser knows it. Ages are counted from it, so a tablet whose clock is wrong shows right ages.

class Clock {
  /** Unix milliseconds; changes once a second while the page is seen. */
  now = $state(Date.now());
  #offset = 0;

  start(): () => void {
    const tick = () => {
      this.now = this.exact();
    };
    const timer = setInterval(() => {
      if (!document.hidden) tick();
    }, 1000);
    document.addEventListener("visibilitychange", tick);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", tick);
    };
  }

  /** Takes the `Date` header of an answer of central. It has whole seconds, so smaller differences say nothing. */
  learn(date: string | null): void {
    const at = date ? Date.parse(date) : Number.NaN;
    if (Number.isNaN(at)) return;
    const offset = at + 500 - Date.now();
    this.#offset = Math.abs(offset) > 2000 ? offset : 0;
  }

  /** central's time this moment. */
  exact(): number {
    return Date.now() + this.#offset;
  }
}

export const clock = new Clock();
