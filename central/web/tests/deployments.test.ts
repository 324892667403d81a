import { expect, test } from "vitest";
import { fieldText, groupsOf, isNothing, messageOfFields, summary } from "../src/lib/deployments";
import { linesWith, logPath, logQuery, logText, restartWrite, severity } from "../src/lib/modules";
import type { Preview } from "../src/lib/types";

const preview = (effects: [string, string][], routes = 0): Preview => {
  const counts: Record<string, number> = {};
  for (const [, effect] of effects) counts[effect] = (counts[effect] ?? 0) + 1;
  const modules = effects.map(([module, effect]) => ({ module, effect, fields: [], steps: [] }));
  const route = { name: "r", from: null, to: "FROM /* INTO $upstream" };
  return { counts, modules, routes: Array(routes).fill(route), twins: [], warnings: [], unknown: [] };
};

test("a preview is one sentence, and what stops something comes first", () => {
  const of = preview(
    [
      ["a", "leave"],
      ["b", "create"],
      ["c", "replace"],
      ["d", "leave"],
    ],
    1,
  );
  expect(summary(of)).toBe("1 replaced, 1 created, 2 left alone, 1 route changed.");
  expect(groupsOf(of).map((group) => group.effect)).toEqual(["replace", "create", "leave"]);
  expect(isNothing(of)).toBe(false);
  expect(summary(preview([["a", "leave"]]))).toBe("Nothing changes.");
});

test("a field whose values may be secret has its name alone", () => {
  expect(fieldText({ field: "env.KEY", from: null, to: null, replaces: true })).toBe("env.KEY");
  const image = { field: "settings.image", from: "a:1", to: "a:2", replaces: true };
  expect(fieldText(image)).toBe("settings.image a:1 to a:2");
  expect(fieldText({ field: "version", from: "", to: "2", replaces: false })).toBe("version none to 2");
});

test("the fields of the route tester make a message, or say what is wrong", () => {
  const none = { from: "", output: "", topic: "", properties: "", body: "" };
  expect(messageOfFields(none).wrong).toContain("From");
  const full = { ...none, from: "gw/m", output: "o", properties: "line=4\n\nalert = a=b", body: '{"t": 1}' };
  expect(messageOfFields(full)).toEqual({
    wrong: null,
    message: {
      from: "gw/m",
      output: "o",
      properties: { line: "4", alert: "a=b" },
      body: { t: 1 },
      systemProperties: { contentType: "application/json", contentEncoding: "utf-8" },
    },
  });
  expect(messageOfFields({ ...none, from: "d", body: "warm" }).message).toEqual({ from: "d", body: "warm" });
  expect(messageOfFields({ ...none, from: "d", properties: "line" }).wrong).toContain("line");
});

test("a module is restarted by IoT Edge's direct method", () => {
  expect(restartWrite("gw 1", "filter")).toEqual({
    method: "POST",
    path: "/api/devices/gw%201/modules/%24edgeAgent/commands/RestartModule",
    body: { request: { schemaVersion: "1.0", id: "filter" }, responseTimeout: 60 },
  });
});

test("the last lines of a log are read, or all with a text, which is no pattern", () => {
  expect(logPath("gw 1", "a/b")).toBe("/api/ext/devices/gw%201/modules/a%2Fb/logs");
  expect(logQuery({ last: 200 })).toEqual({ tail: 200 });
  expect(logQuery({ text: "a.b (c)" })).toEqual({ regex: "(?i)a\\.b \\(c\\)" });
});

test("lines are found in capital letters or not, and a file has each with its time", () => {
  const line = (text: string, time: string | null = null) => ({ time, level: 6, stream: "stdout", text });
  const lines = [line("Pump off", "2026-11-29T03:00:00Z"), line("cold")];
  expect(linesWith(lines, "pump")).toEqual([lines[0]]);
  expect(linesWith(lines, "")).toBe(lines);
  expect(logText(lines)).toBe("2026-11-29T03:00:00Z Pump off\ncold\n");
  expect([0, 3, 4, 5, 6].map(severity)).toEqual(["error", "error", "warning", null, null]);
});
