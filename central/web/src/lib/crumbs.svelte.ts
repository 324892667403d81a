// What the top bar says of the page that is open: each page tells it.

export type Crumb = { text: string; to?: string };

class Crumbs {
  all = $state.raw<Crumb[]>([]);

  set(crumbs: Crumb[], title?: string): void {
    this.all = crumbs;
    const text = title ?? crumbs.at(-1)?.text ?? "";
    document.title = text ? `${text} · central` : "central";
  }
}

export const crumbs = new Crumbs();
