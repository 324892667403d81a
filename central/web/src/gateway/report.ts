// What a gateway reports of itself: the twin of its `$edgeAgent`, in the shape of IoT Edge's.

import type { Twin } from "../lib/types";

export type ModuleReport = {
  image: string | null;
  /** Null when it is the one that runs. */
  desiredImage: string | null;
  startedAt: string | null;
  exitedAt: string | null;
  exitCode: number | null;
  restartPolicy: string | null;
  restartedAt: string | null;
};

type Json = Record<string, unknown>;
const object = (value: unknown): Json => (typeof value === "object" && value !== null ? (value as Json) : {});
const text = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);
/** IoT Edge writes the year 1 for what never was. */
const time = (value: unknown): string | null => {
  const at = text(value);
  return at && !at.startsWith("0001") ? at : null;
};

export function moduleReports(twin: Twin | null): Map<string, ModuleReport> {
  const desired = object(twin?.desired.modules);
  const reported = object(twin?.reported.modules);
  const reports = new Map<string, ModuleReport>();
  for (const name of new Set([...Object.keys(desired), ...Object.keys(reported)])) {
    const [wanted, told] = [object(desired[name]), object(reported[name])];
    const image = text(object(told.settings).image);
    const desiredImage = text(object(wanted.settings).image);
    reports.set(name, {
      image: image ?? desiredImage,
      desiredImage: desiredImage !== image ? desiredImage : null,
      startedAt: time(told.lastStartTimeUtc),
      exitedAt: time(told.lastExitTimeUtc),
      exitCode: typeof told.exitCode === "number" ? told.exitCode : null,
      restartPolicy: text(told.restartPolicy) ?? text(wanted.restartPolicy),
      restartedAt: time(told.lastRestartTimeUtc),
    });
  }
  return reports;
}

export type Deployment = {
  state: "none" | "waiting" | "done" | "refused";
  says: string;
  desired: number;
  reported: number;
};

/** How far the gateway is with the manifest that it was given last. */
export function deploymentOf(twin: Twin | null): Deployment {
  const desired = Number(twin?.desired.$version ?? 0);
  const reported = Number(twin?.reported.lastDesiredVersion ?? 0);
  const status = object(twin?.reported.lastDesiredStatus);
  const code = Number(status.code ?? 0);
  const says = text(status.description) ?? "";
  if (desired === 0) return { state: "none", says: "", desired, reported };
  if (reported < desired)
    return { state: "waiting", says: "The gateway has not taken it up yet.", desired, reported };
  if (code === 200) return { state: "done", says, desired, reported };
  return { state: "refused", says: says || `The gateway answered with ${code}.`, desired, reported };
}

/** What runs it all: version, host, Docker. */
export function systemOf(twin: Twin | null): [string, string][] {
  const reported = object(twin?.reported);
  const runtime = object(reported.runtime);
  const platform = object(runtime.platform);
  const rows: [string, string | null][] = [
    ["edge-agent", text(object(reported.version).version)],
    ["Operating system", text(platform.os)],
    ["Architecture", text(platform.architecture)],
    ["Runtime", [text(runtime.type), text(platform.version)].filter(Boolean).join(" ") || null],
  ];
  return rows.filter((row): row is [string, string] => row[1] !== null);
}
