// Which rows of a long list are drawn: those that are seen, and some above and below them.

const BEYOND = 12;

export class RowWindow {
  first = $state(0);
  last = $state(60);
  rowHeight = $state(32);

  /** Watches a scrolling element. `onEnd` is called when its end comes near. */
  watch(host: HTMLElement, onEnd: () => void): () => void {
    const look = () => {
      const drawn = host.querySelector<HTMLElement>("tbody tr.line");
      if (drawn && drawn.offsetHeight > 0) this.rowHeight = drawn.offsetHeight;
      const seen = Math.ceil(host.clientHeight / this.rowHeight);
      const top = Math.floor(host.scrollTop / this.rowHeight);
      this.first = Math.max(0, top - BEYOND);
      this.last = top + seen + BEYOND;
      if (host.scrollHeight - host.scrollTop - host.clientHeight < host.clientHeight * 2) onEnd();
    };
    const observer = new ResizeObserver(look);
    observer.observe(host);
    host.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      observer.disconnect();
      host.removeEventListener("scroll", look);
    };
  }
}
