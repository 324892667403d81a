// How many things need a person, for the number in the rail. The overview page has them all.

import { overview } from "./overview";
import type { OverviewAnswer } from "./types";

const EVERY_MS = 30_000;

class Needs {
  count = $state(0);

  start(): () => void {
    const ask = () => {
      if (document.hidden) return;
      overview().then(
        (answer) => this.take(answer),
        () => {},
      );
    };
    ask();
    const timer = setInterval(ask, EVERY_MS);
    return () => clearInterval(timer);
  }

  take(answer: OverviewAnswer): void {
    this.count = answer.needsYou.length;
  }
}

export const needs = new Needs();
