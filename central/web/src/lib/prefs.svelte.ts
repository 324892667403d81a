// What one browser chose: theme, density, times in UTC or local. public/theme.js applies the first two before the first paint.

export type Theme = "system" | "light" | "dark";
export type Density = "auto" | "compact" | "comfortable";

function stored(name: string): string | null {
  try {
    return localStorage.getItem(`console.${name}`);
  } catch {
    return null;
  }
}

export function keep(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`console.${name}`);
    else localStorage.setItem(`console.${name}`, value);
  } catch {
    // A browser that keeps nothing shows the defaults next time.
  }
}

class Preferences {
  theme = $state<Theme>((stored("theme") as Theme | null) ?? "system");
  density = $state<Density>((stored("density") as Density | null) ?? "auto");
  /** Grows when the colours on the screen change: charts are drawn, not styled, so they are drawn again. */
  repaint = $state(0);

  start(): () => void {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const onChange = () => {
      this.repaint += 1;
    };
    dark.addEventListener("change", onChange);
    return () => dark.removeEventListener("change", onChange);
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    apply("theme", theme === "system" ? null : theme);
    this.repaint += 1;
  }

  setDensity(density: Density): void {
    this.density = density;
    apply("density", density === "auto" ? null : density);
    this.repaint += 1;
  }

  nextTheme(): void {
    this.setTheme(this.theme === "system" ? "light" : this.theme === "light" ? "dark" : "system");
  }

  nextDensity(): void {
    this.setDensity(this.density === "comfortable" ? "compact" : "comfortable");
  }
}

function apply(name: "theme" | "density", value: string | null): void {
  if (value === null) delete document.documentElement.dataset[name];
  else document.documentElement.dataset[name] = value;
  keep(name, value);
}

export const prefs = new Preferences();

/** JSON that this browser kept, or the value given. */
export function kept<T>(name: string, otherwise: T): T {
  try {
    return JSON.parse(stored(name) ?? "") as T;
  } catch {
    return otherwise;
  }
}
