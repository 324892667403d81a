// The one vocabulary of states: icon, word, colour. The words are IoT Central's where it has them.

import type { Lifecycle, State, Verdict } from "./types";

export type Tone = "ok" | "warn" | "bad" | "unk" | "info" | "blk";
export type Shown = { tone: Tone; icon: string; word: string };

const VERDICTS: Record<Verdict, Shown> = {
  ok: { tone: "ok", icon: "s-ok", word: "OK" },
  degraded: { tone: "warn", icon: "s-warn", word: "Degraded" },
  offline: { tone: "bad", icon: "s-bad", word: "Offline" },
  blocked: { tone: "blk", icon: "s-blk", word: "Blocked" },
  waiting: { tone: "info", icon: "s-wait", word: "Waiting for approval" },
  unknown: { tone: "unk", icon: "s-unk", word: "Unknown" },
};

export const VERDICT_ORDER: Verdict[] = ["offline", "degraded", "waiting", "unknown", "blocked", "ok"];

export function verdictShown(verdict: Verdict): Shown {
  return VERDICTS[verdict] ?? VERDICTS.unknown;
}

/** `Degraded 1/6`: how many of the wanted modules do not run. */
export function stateShown(state: State): Shown {
  const shown = verdictShown(state.verdict);
  const { modulesWanted: wanted, modulesRunning: running } = state;
  if (state.verdict === "degraded" && wanted !== null && running !== null && running < wanted) {
    return { ...shown, word: `Degraded ${wanted - running}/${wanted}` };
  }
  return shown;
}

export function lifecycleWord(lifecycle: Lifecycle): string {
  return lifecycle === "WaitingForApproval" ? "Waiting for approval" : lifecycle;
}

const MODULE_TONES: Record<string, Shown> = {
  running: { tone: "ok", icon: "s-ok", word: "Running" },
  stopped: { tone: "unk", icon: "s-skip", word: "Stopped" },
  backoff: { tone: "bad", icon: "s-bad", word: "Crash loop" },
  failed: { tone: "bad", icon: "s-bad", word: "Failed" },
  unhealthy: { tone: "warn", icon: "s-warn", word: "Unhealthy" },
  creating: { tone: "info", icon: "s-run", word: "Starting" },
  pulling: { tone: "info", icon: "s-run", word: "Pulling" },
  notReported: { tone: "unk", icon: "s-unk", word: "Not reported" },
  unknown: { tone: "unk", icon: "s-unk", word: "Unknown" },
};

/** A module's state in the words of the gateway's report. */
export function moduleShown(status: string): Shown {
  const known = MODULE_TONES[status];
  if (known) return known;
  const word = status.charAt(0).toUpperCase() + status.slice(1);
  return { tone: "unk", icon: "s-unk", word: word || "Unknown" };
}

export function httpTone(status: number): Tone {
  if (status >= 500) return "bad";
  return status >= 400 ? "warn" : "ok";
}
