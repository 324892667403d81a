// Where the operator is: the address bar is the one place that knows. Pages read `route`, and change it by links, `go` or `replace`.

export type Route = { path: string; segments: string[]; query: URLSearchParams };

function read(): Route {
  const segments = location.pathname.split("/").filter(Boolean).map(decode);
  return { path: location.pathname, segments, query: new URLSearchParams(location.search) };
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    // An address that someone typed may hold a lone `%`.
    return segment;
  }
}

class Router {
  current = $state.raw<Route>(read());
  /** Where each history entry was scrolled to, so that Back is exact. */
  #scrolled = new Map<number, number>();
  #entry = 0;

  start(): () => void {
    history.scrollRestoration = "manual";
    this.#entry = (history.state?.entry as number | undefined) ?? 0;
    const onPop = (event: PopStateEvent) => {
      this.#scrolled.set(this.#entry, scrollY);
      this.#entry = (event.state?.entry as number | undefined) ?? 0;
      this.current = read();
      const top = this.#scrolled.get(this.#entry) ?? 0;
      requestAnimationFrame(() => scrollTo(0, top));
    };
    const onClick = (event: MouseEvent) => this.#follow(event);
    addEventListener("popstate", onPop);
    document.addEventListener("click", onClick);
    return () => {
      removeEventListener("popstate", onPop);
      document.removeEventListener("click", onClick);
    };
  }

  /** Goes to another page; Back returns. */
  go(to: string): void {
    if (to === location.pathname + location.search) return;
    this.#scrolled.set(this.#entry, scrollY);
    this.#entry += 1;
    history.pushState({ entry: this.#entry }, "", to);
    this.current = read();
    scrollTo(0, 0);
  }

  /** Changes the address of this page: a filter, a sort. */
  replace(to: string): void {
    history.replaceState({ entry: this.#entry }, "", to);
    this.current = read();
  }

  /** Sets or removes one name of the query. */
  setQuery(changes: Record<string, string | null>, mode: "push" | "replace" = "replace"): void {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === "") query.delete(name);
      else query.set(name, value);
    }
    const text = query.toString();
    const to = location.pathname + (text ? `?${text}` : "");
    if (mode === "push") this.go(to);
    else this.replace(to);
  }

  #follow(event: MouseEvent): void {
    if (
      event.defaultPrevented ||
      event.button !== 0 ||
      event.metaKey ||
      event.ctrlKey ||
      event.shiftKey ||
      event.altKey
    ) {
      return;
    }
    const link = (event.target as Element | null)?.closest?.("a");
    if (!link?.href || link.target || link.hasAttribute("download") || link.dataset.external !== undefined)
      return;
    const to = new URL(link.href);
    if (to.origin !== location.origin || isOfServer(to.pathname)) return;
    event.preventDefault();
    this.go(to.pathname + to.search);
  }
}

/** Paths that central answers itself. */
function isOfServer(path: string): boolean {
  return path.startsWith("/api/") || ["/openapi.json", "/metrics", "/status"].includes(path);
}

export const router = new Router();

/** `/devices/line%201/raw` of its parts. */
export function pathTo(...segments: string[]): string {
  return `/${segments.map(encodeURIComponent).join("/")}`;
}
