// What an operator does to a module of a gateway: it is restarted by IoT Edge's direct method, called as a command, which the audit log
// keeps; its log is read by a path of central, which calls the gateway.

import { ApiError, devicePath, extDevicePath, get, post } from "./api";
import type { Write } from "./curl";
import type { Command, LogLine } from "./types";

/** So long a module may take to stop and start. */
const RESTART_SECONDS = 60;

export function restartWrite(gateway: string, module: string): Write {
  const path = devicePath(gateway, `/modules/${encodeURIComponent("$edgeAgent")}/commands/RestartModule`);
  const request = { schemaVersion: "1.0", id: module };
  return { method: "POST", path, body: { request, responseTimeout: RESTART_SECONDS } };
}

/** Restarts it; a gateway that refuses says itself why. */
export async function restartModule(gateway: string, module: string): Promise<void> {
  const write = restartWrite(gateway, module);
  const command = await post<Command>(write.path, write.body);
  if (command.responseCode === 200) return;
  const { message } = (command.response ?? {}) as { message?: unknown };
  const why = typeof message === "string" ? message : `the gateway answered with ${command.responseCode}`;
  throw new ApiError(command.responseCode ?? 0, "GatewayRefused", why, null);
}

/** The last lines, or all that have a text. */
export type LogPart = { last: number } | { text: string };

export const logPath = (gateway: string, module: string) =>
  extDevicePath(gateway, `/modules/${encodeURIComponent(module)}/logs`);

export function logQuery(part: LogPart): { tail: number } | { regex: string } {
  return "last" in part ? { tail: part.last } : { regex: `(?i)${escaped(part.text)}` };
}

export async function readLog(
  gateway: string,
  module: string,
  part: LogPart,
  signal?: AbortSignal,
): Promise<LogLine[]> {
  return (await get<{ lines: LogLine[] }>(logPath(gateway, module), logQuery(part), signal)).lines;
}

/** A text as a regular expression that matches it alone. */
const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** Whether a log, or a part of it, can't be read because its gateway is away. */
export const isGatewayAway = (error: unknown) =>
  error instanceof ApiError && error.code === "DeviceNotConnected";

export const hasNoContainer = (error: unknown) =>
  error instanceof ApiError && error.code === "ModuleHasNoContainer";

/** `error` of syslog's severities up to 3, `warning` of 4; the others are the usual case and have no name here. */
export function severity(level: number): "error" | "warning" | null {
  if (level <= 3) return "error";
  return level === 4 ? "warning" : null;
}

/** Lines that have a text, in capital letters or not. */
export function linesWith(lines: LogLine[], text: string): LogLine[] {
  const sought = text.toLowerCase();
  return sought ? lines.filter((line) => line.text.toLowerCase().includes(sought)) : lines;
}

/** A log as a file has it. */
export function logText(lines: LogLine[]): string {
  return lines.map((line) => `${line.time ? `${line.time} ` : ""}${line.text}\n`).join("");
}
