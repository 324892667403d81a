// How many things need a person, for the number in the rail. The overview page has them all.

import { get } from "./api";
import type { OverviewAnswer } from "./types";

const EVERY_MS = 30_000;

class Needs {
  count = $state(0);

  start(): () => void {
    const ask = () => {
      if (document.hidden) return;
      get<OverviewAnswer>("/api/ext/overview").then(
        (overview) => this.take(overview),
        () => {},
      );
    };
    ask();
    const timer = setInterval(ask, EVERY_MS);
    return () => clearInterval(timer);
  }

  take(overview: OverviewAnswer): void {
    this.count = overview.needsYou.length;
  }
}

export const needs = new Needs();
