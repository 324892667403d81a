// What an operator does to a module of a gateway: the direct methods of IoT Edge's `$edgeAgent`, called as commands, which the audit log keeps.

import { ApiError, devicePath, post } from "./api";
import type { Write } from "./curl";
import type { Command } from "./types";

/** So long a module may take to stop and start. */
const RESTART_SECONDS = 60;
const LOG_SECONDS = 20;
export const LOG_LINES = 50;

function agentWrite(gateway: string, method: string, request: unknown, seconds: number): Write {
  const path = devicePath(gateway, `/modules/${encodeURIComponent("$edgeAgent")}/commands/${method}`);
  return { method: "POST", path, body: { request, responseTimeout: seconds } };
}

export const restartWrite = (gateway: string, module: string): Write =>
  agentWrite(gateway, "RestartModule", { schemaVersion: "1.0", id: module }, RESTART_SECONDS);

export const logWrite = (gateway: string, module: string): Write =>
  agentWrite(
    gateway,
    "GetModuleLogs",
    {
      schemaVersion: "1.0",
      items: { id: `^${escaped(module)}$`, filter: { tail: LOG_LINES } },
      encoding: "none",
      contentType: "text",
    },
    LOG_SECONDS,
  );

const escaped = (name: string) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** What the gateway answered; it says itself why it refused. */
async function called(write: Write): Promise<unknown> {
  const command = await post<Command>(write.path, write.body);
  if (command.responseCode === 200) return command.response;
  const { message } = (command.response ?? {}) as { message?: unknown };
  const said = typeof message === "string" ? message : `the gateway answered with ${command.responseCode}`;
  throw new ApiError(command.responseCode ?? 0, "GatewayRefused", said, null);
}

export async function restartModule(gateway: string, module: string): Promise<void> {
  await called(restartWrite(gateway, module));
}

/** The last lines of a module's log; null where the gateway does not hand logs out. */
export async function lastLines(gateway: string, module: string): Promise<string[] | null> {
  let answer: unknown;
  try {
    answer = await called(logWrite(gateway, module));
  } catch (caught) {
    if (caught instanceof ApiError && caught.code === "GatewayRefused" && caught.status === 400) return null;
    throw caught;
  }
  return linesOf(answer, module);
}

/** Of IoT Edge's answer: a list with one text for each module. */
export function linesOf(answer: unknown, module: string): string[] {
  const items = Array.isArray(answer) ? (answer as { id?: string; payload?: unknown }[]) : [];
  const text = (items.find((one) => one.id === module) ?? items[0])?.payload;
  if (typeof text !== "string") return [];
  return text.split("\n").filter((line) => line !== "");
}
